"""Files translated record by record: how they are written (formats), how far a run is (journal), the run itself."""
