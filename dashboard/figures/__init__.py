"""Charts: pure functions to Plotly figures, a file a kind; no database and no Streamlit in here."""
