"""Files for people who keep the books: one format each, written whole or not at all.

``csv_files`` says what each format holds, ``writer`` brings it to a file or a pipe. Reads the contract and changes
nothing; the same range of an account gives the same bytes.
"""
