"""Runs migrations on the connection that ``db.engine.upgrade`` passes in; there is no alembic.ini."""

from alembic import context

from db.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite cannot alter columns in place
)
with context.begin_transaction():
    context.run_migrations()
