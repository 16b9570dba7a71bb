"""The commands, one file for each group of them; main.py puts them together."""
