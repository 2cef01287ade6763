"""The page of `gan-lightning app`: photographs are restored in a browser, by the code behind `restore`."""
