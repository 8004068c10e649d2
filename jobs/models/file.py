"""Files: uploaded by a site, or the output of a batch."""

from django.db import models
from django.db.models.functions import Now

from core.fields import EncryptedField
from core.ids import new_uuid, to_public
from tenants.models import Site


class FilePurpose(models.TextChoices):
    BATCH = "batch", "Batch input"
    #: Generated from the members of the batch whenever it is read; without chunks.
    BATCH_OUTPUT = "batch_output", "Batch output"


class File(models.Model):
    """A file as in OpenAI's `/v1/files`. Its content is stored encrypted, in chunks."""

    ID_PREFIX = "file"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    site = models.ForeignKey(Site, models.CASCADE, related_name="files")
    purpose = models.CharField(max_length=20, choices=FilePurpose.choices)
    filename = models.CharField(max_length=255)
    #: Length of the content.
    bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["site", "-id"], name="files_of_a_site"),
            models.Index(fields=["expires_at"], name="files_expiring"),
        ]

    def __str__(self) -> str:
        return self.filename

    @property
    def public_id(self) -> str:
        return to_public(self.ID_PREFIX, self.id)


class FileChunk(models.Model):
    """A part of a file's content, so that a whole file is never in memory."""

    file = models.ForeignKey(File, models.CASCADE, related_name="chunks")
    #: Counted from 0.
    number = models.PositiveIntegerField()
    content = EncryptedField(editable=False)

    class Meta:
        ordering = ["file", "number"]
        constraints = [models.UniqueConstraint(fields=["file", "number"], name="one_chunk_per_number")]

    def __str__(self) -> str:
        return f"{self.file_id} #{self.number}"
