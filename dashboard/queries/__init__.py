"""What the pages show, read from Postgres through `kdsearch.store`; no Streamlit in here."""
