"""The command `report`: one page, in one file, that compares runs."""
