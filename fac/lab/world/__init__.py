"""The lab's written world: `grammar` (what a query is), `corpora` (data sets drawn from it), `truth` (its parser)."""
