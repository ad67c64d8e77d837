#!/usr/bin/env python3
"""The Python client library of rqlite, unchanged, against a node: a table, a row, the row read again.

usage: python-client URL CA [CERTIFICATE KEY]. Prints "ok"; anything else is an error.
"""
import pathlib
import ssl
import sys
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "library"))
import pyrqlite.dbapi2 as rqlite


def main(url, authorities, *pair):
    parts = urllib.parse.urlsplit(url)
    context = ssl.create_default_context(cafile=authorities)
    if pair:
        context.load_cert_chain(*pair)
    connection = rqlite.connect(
        scheme=parts.scheme,
        host=parts.hostname,
        port=parts.port,
        user=parts.username,
        password=parts.password,
        ssl_context=context,
        timeout=10,
    )
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS python_client(id INTEGER PRIMARY KEY, name TEXT)")
        cursor.execute("INSERT INTO python_client(name) VALUES(?)", ("fiona",))
        cursor.execute("SELECT name FROM python_client WHERE id = ?", (cursor.lastrowid,))
        row = cursor.fetchone()
    if row["name"] != "fiona":
        sys.exit(f"read {row!r}")
    print("ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
