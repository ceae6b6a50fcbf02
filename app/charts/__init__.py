"""Frames → Altair charts. No Streamlit."""
