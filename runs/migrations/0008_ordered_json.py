from django.db import migrations

from flows.fields import OrderedJSONField, keep_order


class Migration(migrations.Migration):
    dependencies = [("runs", "0007_subruns")]

    operations = [keep_order("runs", "run", parameters=OrderedJSONField(default=dict))]
