"""The admin: secrets shown once, credentials replaced and revoked, every act in the audit log."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import models
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from core import clock
from core.crypto import new_key
from tenants.credentials import NewSite, issue, live_credentials
from tenants.models import AuditEntry, Credential, CredentialKind, Site
from tests.request_signing import bearer

#: What the browser sends for the list of credentials, which nobody edits.
INLINE = {"credentials-TOTAL_FORMS": "0", "credentials-INITIAL_FORMS": "0"}

SECRET, KEY = CredentialKind.SIGNING_SECRET, CredentialKind.API_KEY


@pytest.fixture
def staff(admin_client: Client) -> Client:
    return admin_client


def text_of(response: Any) -> str:
    assert response.status_code == 200
    return unescape(response.content.decode())


def page_of(row: models.Model) -> str:
    return reverse(f"admin:tenants_{row._meta.model_name}_change", args=(row.pk,))


def list_of(model: type[models.Model]) -> str:
    return reverse(f"admin:tenants_{model._meta.model_name}_changelist")


def act(staff: Client, action: str, *rows: models.Model) -> str:
    """Choose an action for rows on their list; return the page that follows."""
    chosen = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    return text_of(staff.post(list_of(type(rows[0])), chosen, follow=True))


def save(staff: Client, url: str, **fields: object) -> str:
    given = {"name": "Bakery", "slug": "bakery", "is_active": "on", **INLINE, **fields}
    return text_of(staff.post(url, given, follow=True))


def shown_in(text: str) -> list[str]:
    return re.findall(r"nd_(?:sig|[0-9A-Za-z]{10})_[0-9A-Za-z]{40,43}", text)


# Sites


def test_a_new_site_shows_its_secret_and_key_once_and_they_work(staff: Client) -> None:
    page = save(staff, reverse("admin:tenants_site_add"), origins="https://Bakery.test/\n\n")

    site = Site.objects.get()
    secret, key = shown_in(page)
    assert (site.name, site.slug, site.origins) == ("Bakery", "bakery", ["https://bakery.test"])
    assert bytes(live_credentials(site, SECRET).get().secret or b"").decode() == secret
    assert Client().get("/v1/jobs", headers=bearer(key)).status_code == 200
    assert shown_in(text_of(staff.get(page_of(site)))) == []
    assert AuditEntry.objects.filter(action="site.create", actor="admin", address="127.0.0.1").count() == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "required"),
        ({"name": "a\x01b"}, "printable characters"),
        ({"slug": "Bakery"}, "such as corner-bakery"),
        ({"slug": "site_01k"}, "such as corner-bakery"),
        ({"slug": "florist"}, "already exists"),
        ({"ip_allowlist": "203.0.113.0/24\nnonsense"}, "Not an IP address or network: nonsense"),
        ({"ip_allowlist": "203.0.113.0/64"}, "Not an IP address or network"),
        ({"origins": "bakery.test"}, "Not an origin such as https://example.com: bakery.test"),
        ({"origins": "https://" + "x" * 300}, "Not an origin"),
        ({"max_running_jobs": "0"}, "greater than or equal to 1"),
        ({"retention_days": "-1"}, "greater than or equal to 0"),
        ({"retention_days": "36501"}, "less than or equal to 36500"),
        ({"allowed_models": "x" * 201}, "A model name has at most 200 characters"),
        ({"allowed_models": "\n".join(str(n) for n in range(101))}, "At most 100 entries"),
    ],
)
def test_an_invalid_site_is_explained_and_not_stored(
    staff: Client, florist: NewSite, fields: dict[str, str], said: str
) -> None:
    assert said in save(staff, reverse("admin:tenants_site_add"), **fields)

    assert Site.objects.count() == 1


def test_changes_are_stored_and_audited_with_the_old_values(staff: Client, bakery: NewSite) -> None:
    save(
        staff,
        page_of(bakery.site),
        ip_allowlist="203.0.113.77/24\r\n2001:db8::1",
        allowed_models="gpt-5\ngpt-5-mini\ngpt-5",
    )

    site = Site.objects.get()
    assert site.ip_allowlist == ["203.0.113.0/24", "2001:db8::1/128"]
    assert site.allowed_models == ["gpt-5", "gpt-5-mini"]
    entry = AuditEntry.objects.get(action="site.change")
    assert entry.site == site
    assert entry.details == {
        "name": ["Corner Bakery", "Bakery"],
        "ip_allowlist": [[], ["203.0.113.0/24", "2001:db8::1/128"]],
        "allowed_models": [[], ["gpt-5", "gpt-5-mini"]],
    }


def test_caps_and_retention_are_set_and_audited(staff: Client, bakery: NewSite) -> None:
    Site.objects.update(name="Bakery")

    save(staff, page_of(bakery.site), max_running_jobs="5", retention_days="0")
    save(staff, page_of(bakery.site), max_running_jobs="", retention_days="7")

    site = Site.objects.get()
    assert (site.max_running_jobs, site.retention_days) == (None, 7)
    later, earlier = (entry.details for entry in AuditEntry.objects.filter(action="site.change").order_by("-id"))
    assert earlier == {"max_running_jobs": [None, 5], "retention_days": [None, 0]}
    assert later == {"max_running_jobs": [5, None], "retention_days": [0, 7]}


def test_saving_without_a_change_leaves_the_lists_as_they_are(staff: Client, bakery: NewSite) -> None:
    Site.objects.update(ip_allowlist=["203.0.113.0/24"], name="Bakery")

    save(staff, page_of(bakery.site), ip_allowlist="203.0.113.0/24")

    assert AuditEntry.objects.get(action="site.change").details == {}


def test_a_site_is_deactivated_and_never_deleted(staff: Client, bakery: NewSite) -> None:
    staff.post(page_of(bakery.site), {"name": "Bakery", "slug": "bakery", **INLINE})

    assert Site.objects.get().is_active is False
    assert staff.post(reverse("admin:tenants_site_delete", args=(bakery.site.pk,))).status_code == 403
    assert "delete_selected" not in text_of(staff.get(list_of(Site)))


def test_sites_are_listed_with_their_live_credentials(staff: Client, bakery: NewSite) -> None:
    issue(bakery.site, KEY)
    Credential.objects.filter(kind=SECRET).update(expires_at=clock.now() - timedelta(seconds=1))

    (site,) = staff.get(list_of(Site)).context["cl"].result_list

    assert (site.secrets, site.keys) == (0, 2)


@pytest.mark.parametrize("search", ["{id}", "corner", "bakery"])
def test_sites_are_found_by_id_name_and_slug(staff: Client, bakery: NewSite, florist: NewSite, search: str) -> None:
    found = staff.get(list_of(Site), {"q": search.format(id=bakery.site.public_id)}).context["cl"].result_list

    assert list(found) == [bakery.site]


# Credentials


@pytest.mark.parametrize(
    ("action", "kind", "ending"),
    [
        ("issue_secret", SECRET, False),
        ("issue_key", KEY, False),
        ("rotate_secret", SECRET, True),
        ("rotate_key", KEY, True),
    ],
)
def test_a_new_credential_is_shown_once(
    staff: Client, bakery: NewSite, action: str, kind: CredentialKind, ending: bool
) -> None:
    page = act(staff, action, bakery.site)

    assert len(shown_in(page)) == 1
    assert live_credentials(bakery.site, kind).count() == 2
    assert live_credentials(bakery.site, kind).exclude(expires_at=None).exists() is ending
    assert AuditEntry.objects.filter(actor="admin", action__startswith=kind, subject__startswith="key_").count() == 1
    assert shown_in(text_of(staff.get(list_of(Site)))) == []


def test_too_many_live_credentials_are_rejected_with_a_reason(staff: Client, bakery: NewSite) -> None:
    for _ in range(3):
        issue(bakery.site, KEY)

    page = act(staff, "issue_key", bakery.site)

    assert "Revoke one that is not used" in page
    assert live_credentials(bakery.site, KEY).count() == 4


def test_a_credential_is_revoked_from_its_list(staff: Client, bakery: NewSite) -> None:
    page = act(staff, "revoke_selected", bakery.api_key.credential, bakery.signing_secret.credential)

    assert "Revoked 2 credentials." in page
    assert not Credential.objects.filter(revoked_at=None).exists()
    assert AuditEntry.objects.filter(actor="admin", action__endswith=".revoke").count() == 2


def test_pages_never_show_a_secret_or_a_hash(staff: Client, bakery: NewSite) -> None:
    pages = [list_of(Credential), page_of(bakery.api_key.credential), page_of(bakery.signing_secret.credential)]

    shown = "".join(text_of(staff.get(page)) for page in [*pages, page_of(bakery.site), list_of(AuditEntry)])

    assert bakery.api_key.credential.public_id in shown
    assert shown_in(shown) == []
    assert bytes(bakery.api_key.credential.key_hash or b"").hex() not in shown


def test_a_lost_encryption_key_does_not_close_the_pages(staff: Client, bakery: NewSite, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = f"other:{new_key()}"

    for page in (list_of(Site), page_of(bakery.site), list_of(Credential), page_of(bakery.signing_secret.credential)):
        assert staff.get(page).status_code == 200
    assert "Revoked 1 credential." in act(staff, "revoke_selected", bakery.signing_secret.credential)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Live"),
        ({"expires_at": timedelta(hours=1)}, "Live until"),
        ({"expires_at": timedelta(hours=-1)}, "Expired"),
        ({"revoked_at": timedelta(hours=-1)}, "Revoked"),
    ],
)
def test_a_credential_shows_its_state(staff: Client, bakery: NewSite, changes: dict[str, timedelta], said: str) -> None:
    Credential.objects.filter(kind=KEY).update(**{name: clock.now() + span for name, span in changes.items()})

    assert said in text_of(staff.get(list_of(Credential), {"q": bakery.api_key.credential.public_id}))


def test_credentials_are_not_edited(staff: Client, bakery: NewSite) -> None:
    url = page_of(bakery.api_key.credential)

    assert staff.post(url, {"hint": "xxxx"}).status_code == 403
    assert staff.get(reverse("admin:tenants_credential_add")).status_code == 403


# Who may, and what is left


def test_an_operator_with_view_permission_cannot_issue_or_revoke(bakery: NewSite) -> None:
    reader = User.objects.create_user("reader", password="a long password", is_staff=True)
    reader.user_permissions.add(*Permission.objects.filter(codename__in=["view_site", "view_credential"]))
    client = Client()
    client.force_login(reader)

    for action, row in (("issue_key", bakery.site), ("revoke_selected", bakery.api_key.credential)):
        act(client, action, row)

    assert Credential.objects.filter(revoked_at=None).count() == 2


def test_the_audit_log_can_be_searched_and_not_edited(staff: Client, bakery: NewSite) -> None:
    entry = AuditEntry.objects.get(action="site.create")

    assert "site.create" in text_of(staff.get(list_of(AuditEntry), {"q": bakery.site.public_id}))
    assert "command line" in text_of(staff.get(page_of(entry)))
    assert staff.post(page_of(entry), {"actor": "nobody"}).status_code == 403
    assert staff.get(reverse("admin:tenants_auditentry_add")).status_code == 403


def test_audit_entries_of_a_deleted_site_can_still_be_read(staff: Client, bakery: NewSite) -> None:
    entry = AuditEntry.objects.get(action="site.create")
    Credential.objects.all().delete()
    Site.objects.all().delete()

    assert staff.get(list_of(AuditEntry)).status_code == 200
    assert staff.get(page_of(entry)).status_code == 200


def test_lists_make_no_query_per_row(staff: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(20):
        save(staff, reverse("admin:tenants_site_add"), slug=f"s{number}")

    for page in (list_of(Site), list_of(Credential), list_of(AuditEntry)):
        with django_assert_max_num_queries(12):
            staff.get(page)
