"""Tokens that prove that a form was served by the page to the same user: a defense against cross-site requests.

Airflow's session cookie is ``SameSite=Lax``, so browsers leave it out of a cross-site POST already. But a *site* is
a registrable domain, so another host below it counts as the same; and a deployment can put another proxy with other
cookies before Airflow. So each form carries a token, signed with Airflow's ``[api] secret_key`` as Airflow signs its
own, and bound to the user, the action and the backup; and the request's origin must be Airflow's own.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from airflow.configuration import conf
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from starlette.requests import Request

MAX_AGE = 12 * 3600
"""Seconds for which a form can be sent."""


class InvalidToken(Exception):
    """The token of a form is missing, expired, or was made for another user or form."""


def issue(user_id: str, *form: str) -> str:
    """Return a token for one form.

    :param user_id: whom the form is shown to.
    :param form: what it does: the action and the backup.
    """
    return _serializer().dumps([user_id, *form, secrets.token_hex(8)])


def accept(token: str, user_id: str, *form: str) -> str:
    """Return the random part of a token, the same each time that the form is sent.

    :raises InvalidToken: the token has expired, or belongs to another user or form.
    """
    try:
        *bound, nonce = _serializer().loads(token, max_age=MAX_AGE)
    except SignatureExpired:
        raise InvalidToken("the form has expired") from None
    except (BadSignature, ValueError, TypeError):
        raise InvalidToken("the form has no valid token") from None
    if bound != [user_id, *form]:
        raise InvalidToken("the form was made for another user or backup")
    return str(nonce)


def is_own_origin(request: Request) -> bool:
    """Return whether the request comes from a page of Airflow, as far as the browser says so.

    Browsers send ``Sec-Fetch-Site`` over HTTPS and to localhost, ``Origin`` with each POST; programs send neither.
    ``Origin`` is ``null`` where a referrer policy hides it, so ``null`` is accepted only beside ``Sec-Fetch-Site``.
    """
    site = request.headers.get("sec-fetch-site")
    if site not in (None, "same-origin"):
        return False
    origin = request.headers.get("origin")
    if origin is None or (origin == "null" and site):
        return True
    own = {request.headers.get("host"), urlsplit(conf.get("api", "base_url", fallback="")).netloc}
    try:
        return urlsplit(origin).netloc in own - {"", None}
    except ValueError:
        return False


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(conf.get_mandatory_value("api", "secret_key"), salt="airflow-pgbackup.actions")
