"""Read what pg_dump and pg_dumpall write, in each of their formats, and prove that it is complete.

========================  ==============================================================================
``reader``                read an artifact to its last byte: rows and digests of every table
``summary``               what that finds
``archive_file``          which format a file has, and its table of contents
``toc``                   the table of contents of the three archive formats
``custom_format``         the data blocks of the custom format
``checked_blocks``        these blocks on their way to pg_restore
``tar_format``            the members of the tar format
``directory_format``      the members of the directory format
``member_names``          names inside an archive, checked before a PostgreSQL tool opens it
``script_reader``         plain dumps, and the SQL that pg_restore writes
``script_trailer``        whether a plain dump is complete
``custom_decoder``        the rows of a custom archive, decoded without pg_restore
``pg_restore_output``     pg_restore decoding an archive, its failures turned into findings
``row_digests``           COPY text: rows counted and hashed, in order or as a set
``decompression``         gzip, zlib and zstd read as a stream; compressed members checked
``zstd_blocks``           a zstd stream cut so that decompressing it needs little memory
``memory_limit``          a limit on the names held while a script is read
``recompression``         the data of a custom archive compressed on several cores
``sniff``                 what kind of dump a file is
========================  ==============================================================================

PostgreSQL's tools do not notice every truncation, so this package checks for it first:

* tar: pg_restore loops endlessly on some truncated archives.
* directory: pg_restore takes an emptied or truncated member for a table with fewer rows.
* plain: psql restores what is left of a truncated script and succeeds.
"""
