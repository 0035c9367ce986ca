"""Reports with plots, and tables for other tools."""

import logging

# Before it is imported: its warnings are about a folder for its own cache, of which a report needs nothing.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
