"""Settings: one table (table.py), the values' kinds (kinds.py), where they come from (sources.py), how they are
written down (render.py). Standard library only; knows nothing of HTTP, engines or models.
"""

from nllbd.config.sources import DEFAULT_FILE, load_settings
from nllbd.config.table import ROWS, Row, Settings, state_folder

__all__ = ["DEFAULT_FILE", "ROWS", "Row", "Settings", "load_settings", "state_folder"]
