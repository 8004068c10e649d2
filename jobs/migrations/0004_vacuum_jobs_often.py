"""A queue's rows change all the time: what is dead is cleaned up, and counted anew, at every fiftieth row."""

from django.db import migrations

OFTEN = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02"
DEFAULT = "autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor"


class Migration(migrations.Migration):
    dependencies = [("jobs", "0003_batch_counts_of_canceled_and_expired")]

    operations = [
        migrations.RunSQL(f"ALTER TABLE {table} SET ({OFTEN})", f"ALTER TABLE {table} RESET ({DEFAULT})")
        for table in ("jobs_job", "jobs_attempt")
    ]
