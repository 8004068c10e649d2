from django.db import migrations

CODES = {
    'credential_dead': 'provider_key_rejected',
    'retry_budget': 'retry_budget_exhausted',
    'providers_resting': 'providers_in_cooldown',
}


def rename(table, codes):
    return [
        migrations.RunSQL(
            f"UPDATE {table} SET error_code = '{new}' WHERE error_code = '{old}'",
            f"UPDATE {table} SET error_code = '{old}' WHERE error_code = '{new}'",
        )
        for old, new in codes.items()
    ]


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0013_scope_of_idempotency_keys'),
    ]

    operations = [*rename('jobs_job', CODES), *rename('jobs_attempt', CODES)]
