from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('inference', '0003_who_may_close_breakers'),
    ]

    operations = [
        migrations.RenameModel('Target', 'RouteTarget'),
        migrations.AlterField(
            model_name='route',
            name='model',
            field=models.CharField(help_text='Model name used by sites', max_length=200, unique=True),
        ),
    ]
