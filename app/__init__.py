"""The Streamlit app: explores the results. It reads them only; `run_sweep.py` writes them."""
