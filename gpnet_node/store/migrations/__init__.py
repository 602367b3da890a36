"""Alembic's migrations of the database, run by ``gpnet_node.store.database.upgrade``."""
