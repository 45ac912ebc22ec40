"""The report: its content, as a page for the browser, as text for the terminal, as JSON."""
