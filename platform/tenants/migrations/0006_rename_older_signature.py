from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0005_who_may_act_on_streams'),
    ]

    operations = [
        migrations.RenameField('site', 'accepts_older_signature', 'accepts_legacy_signature'),
    ]
