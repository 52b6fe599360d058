"""Serves DB-API 2.0 (PEP 249): sync database code over async drivers, whose waits are the loop's.

Pick the module of the driver and use it as the sync driver that it replaces::

    from fiberback.dbapi import psycopg           # for `import psycopg`: PostgreSQL
    from fiberback.dbapi import psycopg_pool      # for `import psycopg_pool`
    from fiberback.dbapi import aiosqlite         # for `import sqlite3`

    def report():                                 # plain sync code
        with psycopg.connect("dbname=shop") as connection:
            return connection.execute("SELECT count(*) FROM orders").fetchone()

    async def main():
        print(report())                           # other tasks run while the server works

    fiberback.run(main())

Where an asyncio loop runs, every method that talks to the database waits with `fiberback.await_`.
In a thread without one it blocks that thread, as the sync driver does, so migrations, shells and
worker threads run the same code. ORMs that speak DB-API stand on this: `fiberback.peewee`,
`fiberback.django`.

Each module is a face only: psycopg 3's `AsyncConnection` and aiosqlite do the work. A task that is
cancelled in the middle of a query leaves its connection idle or closed, never busy.
"""
