from django.db import migrations

RENAME = "UPDATE metering_usageevent SET error_code = 'provider_key_rejected' WHERE error_code = 'credential_dead'"
RESTORE = "UPDATE metering_usageevent SET error_code = 'credential_dead' WHERE error_code = 'provider_key_rejected'"


class Migration(migrations.Migration):

    dependencies = [
        ('metering', '0004_labels_for_operators'),
    ]

    operations = [migrations.RunSQL(RENAME, RESTORE)]
