"""Frames → words. No Streamlit."""
