"""`fac report`: all finished runs as one site of files that needs no server and no network.

`runs` finds them, `answers` says what a table's rows come to, `claims` holds the paper's claims against them,
`features` collects what is known of each SAE feature, `write` makes the files.
"""
