"""The pages: each module wires widgets to queries and figures, in a function `show`."""
