"""DataFrames → tables as HTML, CSV, LaTeX, Markdown. No Streamlit."""
