"""What Alembic runs: the migrations, on the connection and in the transaction that ``upgrade`` gives."""

from alembic import context

from gpnet_node.store.database import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
