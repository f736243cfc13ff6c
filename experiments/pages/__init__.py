"""How each experiment shows what it found, a module of its name: the tables, figures and facts of its page."""
