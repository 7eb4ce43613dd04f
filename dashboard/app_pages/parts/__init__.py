"""Parts of pages: what two pages show, or one page that would be too long."""
