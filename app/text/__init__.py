"""DataFrames → sentences. No Streamlit."""
