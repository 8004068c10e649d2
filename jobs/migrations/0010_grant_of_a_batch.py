from django.db import migrations

import tenants.grant

# A row that restricts nothing is `{}`, as `GrantField` writes it.
MERGE = """
UPDATE jobs_batch SET "grant" = jsonb_strip_nulls(jsonb_build_object(
    'only_model', nullif(only_model, ''),
    'max_tokens', max_tokens_cap,
    'allows_premium_tiers', CASE WHEN allows_dearer THEN NULL ELSE false END
))
WHERE only_model <> '' OR max_tokens_cap IS NOT NULL OR NOT allows_dearer
"""

SPLIT = """
UPDATE jobs_batch SET only_model = coalesce("grant" ->> 'only_model', ''),
    max_tokens_cap = ("grant" ->> 'max_tokens')::integer,
    allows_dearer = coalesce(("grant" ->> 'allows_premium_tiers')::boolean, true)
WHERE "grant" <> '{}'
"""


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0009_dearer_tiers_of_a_batch'),
    ]

    operations = [
        migrations.AddField(
            model_name='batch',
            name='grant',
            field=tenants.grant.GrantField(default=tenants.grant.Grant),
        ),
        migrations.RunSQL(MERGE, SPLIT),
        migrations.RemoveField(model_name='batch', name='only_model'),
        migrations.RemoveField(model_name='batch', name='max_tokens_cap'),
        migrations.RemoveField(model_name='batch', name='allows_dearer'),
    ]
