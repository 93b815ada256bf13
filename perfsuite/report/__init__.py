"""Results for people and for other tools; each module turns results into one form."""
