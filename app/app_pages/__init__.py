"""The pages, one a file, in the order of app/main.py. Streamlit runs them; nothing imports them."""
