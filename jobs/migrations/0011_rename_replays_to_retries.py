import django.db.models.deletion
from django.db import migrations, models

RELEASED = "UPDATE jobs_attempt SET outcome = 'released' WHERE outcome = 'drained'"


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0010_grant_of_a_batch'),
    ]

    operations = [
        migrations.RenameField('batch', 'replay_of', 'retry_of'),
        migrations.RenameField('job', 'replay_of', 'retry_of'),
        migrations.RenameField('batch', 'progress_told_at', 'progress_sent_at'),
        migrations.RenameField('batch', 'progress_told', 'progress_sent_count'),
        migrations.RunSQL(RELEASED, migrations.RunSQL.noop),
        migrations.AlterField(
            model_name='attempt',
            name='outcome',
            field=models.CharField(blank=True, choices=[('ok', 'OK'), ('error', 'Error'), ('lost', 'Worker lost'), ('released', 'Released'), ('canceled', 'Canceled')], max_length=10),
        ),
        migrations.AlterField(
            model_name='batch',
            name='retry_of',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='retries', to='jobs.batch'),
        ),
        migrations.AlterField(
            model_name='job',
            name='retry_of',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='retries', to='jobs.job'),
        ),
    ]
