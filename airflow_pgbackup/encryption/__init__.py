"""Encryption of artifacts with age (https://age-encryption.org/v1), by the library pyrage.

Whoever writes a backup holds public keys only, the *recipients*; reading one takes the secret key of a recipient, an
*identity*. Any age program reads the files: ``age -d -i key.txt app.dump.age | pg_restore …``.
"""
