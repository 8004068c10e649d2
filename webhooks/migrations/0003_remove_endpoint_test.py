from django.db import migrations

# The type was offered and never sent. An empty list means every event, so an endpoint that was subscribed to nothing else
# is disabled instead of receiving all of them.
DISABLE = """
UPDATE webhooks_endpoint SET is_enabled = false WHERE event_types = ARRAY['endpoint.test']::varchar(60)[]
"""
REMOVE = """
UPDATE webhooks_endpoint SET event_types = array_remove(event_types, 'endpoint.test')
 WHERE 'endpoint.test' = ANY(event_types)
"""


class Migration(migrations.Migration):

    dependencies = [
        ('webhooks', '0002_labels_for_operators'),
    ]

    operations = [
        migrations.RunSQL(DISABLE, migrations.RunSQL.noop),
        migrations.RunSQL(REMOVE, migrations.RunSQL.noop),
    ]
