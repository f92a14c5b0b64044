"""The search: who tries what, when. The commands are `python -m search.<verb>`."""
