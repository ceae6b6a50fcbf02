"""DataFrames → Altair charts. No Streamlit."""
