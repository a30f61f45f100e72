"""Credentials that say themselves what they are: by the prefix, the length and the alphabet that their issuers publish.

Owns the formats, each once. A token begins where a word begins; what follows it is taken along, as redacting too much
of a token is better than leaving its end. Every format is searched in time linear in the text: what can fail does so
after a bounded number of characters, or begins only where the text before it cannot belong to it.
"""

from __future__ import annotations

import re
from typing import Final

_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
#: (who issues it, its format). Each begins with a literal character, which the scanner looks at first.
FORMATS: Final = (
    ("aws", r"A(?:KIA|SIA|BIA|CCA|3T[A-Z0-9])[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("aws", r"amzn\.mws\." + _UUID),
    ("aws", r"ABSK[A-Za-z0-9+/]{100,}={0,2}"),
    ("gcp", r"AIza[\w-]{35}"),
    ("gcp", r"ya29\.[\w-]{20,}"),
    ("gcp", r"GOCSPX-[\w-]{24,}"),
    ("gcp", r"1//0[\w-]{38,}"),
    ("azure", r"[\w~.]{3}[78]Q~[\w~.-]{31,34}"),
    ("azure", r"[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}"),
    ("github", r"gh[pousr]_[A-Za-z0-9]{30,}"),
    ("github", r"github_pat_[A-Za-z0-9_]{36,}"),
    ("gitlab", r"gl(?:pat|dt|ft|soat|rt|rtr|cbt|ptt|agent|oas|imt|ffct)-[\w-]{20,}(?:\.[0-9a-z]{2}[0-9a-z.]{7,10})?"),
    ("gitlab", r"GR1348941[\w-]{20}"),
    ("slack", r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}"),
    ("slack", r"xapp-\d-[A-Za-z0-9-]{20,}"),
    ("slack", r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,}"),
    ("stripe", r"[sr]k_(?:live|test|prod)_[A-Za-z0-9]{10,}"),
    ("stripe", r"whsec_[A-Za-z0-9+/]{20,}={0,2}"),
    ("anthropic", r"sk-ant-[\w-]{20,}"),
    ("openrouter", r"sk-or-v1-[0-9a-f]{32,}"),
    ("langfuse", r"sk-lf-" + _UUID),
    ("openai", r"sk-(?:proj|svcacct|admin|service|None)-[\w-]{32,}"),
    ("openai", r"sk-[A-Za-z0-9]{32,}"),
    ("npm", r"npm_[A-Za-z0-9]{36}"),
    ("pypi", r"pypi-Ag[\w-]{50,}"),
    ("rubygems", r"rubygems_[0-9a-f]{48}"),
    ("crates", r"cio[A-Za-z0-9]{32}(?![A-Za-z0-9])"),
    ("nuget", r"oy2[a-z0-9]{43}(?![A-Za-z0-9])"),
    ("clojars", r"CLOJARS_[A-Za-z0-9]{60}"),
    ("docker", r"dckr_[op]at_[\w-]{20,}"),
    ("huggingface", r"hf_[A-Za-z0-9]{30,}(?![A-Za-z0-9_])"),
    ("huggingface", r"api_org_[A-Za-z0-9]{34}"),
    ("groq", r"gsk_[A-Za-z0-9]{40,}"),
    ("xai", r"xai-[A-Za-z0-9]{60,}"),
    ("replicate", r"r8_[A-Za-z0-9]{37}"),
    ("perplexity", r"pplx-[A-Za-z0-9]{40,}"),
    ("nvidia", r"nvapi-[\w-]{60,}"),
    ("cerebras", r"csk-[a-z0-9]{40,}"),
    ("tavily", r"tvly-(?:dev-|prod-)?[A-Za-z0-9]{30,}"),
    ("firecrawl", r"fc-[0-9a-f]{32}"),
    ("pinecone", r"pcsk_[A-Za-z0-9_]{50,}"),
    ("elevenlabs", r"sk_[0-9a-f]{48}"),
    ("langsmith", r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
    ("sendgrid", r"SG\.[\w-]{16,40}\.[\w-]{16,64}"),
    ("brevo", r"xkeysib-[0-9a-f]{64}-[A-Za-z0-9]{16}"),
    ("mailgun", r"key-[0-9a-f]{32}(?![A-Za-z0-9])"),
    ("mailchimp", r"[0-9a-f]{32}-us\d{1,2}(?!\d)"),
    ("mailersend", r"mlsn\.[0-9a-f]{64}"),
    ("resend", r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{24}"),
    ("twilio", r"SK[0-9a-f]{32}(?![A-Za-z0-9])"),
    ("telegram", r"(?:bot)?\d{8,10}:AA[\w-]{32,34}(?![\w-])"),
    ("discord", r"[MNO][A-Za-z\d]{23,27}\.[\w-]{6}\.[\w-]{27,40}"),
    ("discord", r"discord(?:app)?\.com/api/(?:v\d+/)?webhooks/\d{17,20}/[\w-]{60,}"),
    ("teams", r"webhook\.office\.com/webhookb2/[\w@-]{73,80}/IncomingWebhook/[\w/-]{32,}"),
    ("shopify", r"shp(?:at|ca|pa|ss|it|tka)_[0-9a-fA-F]{32}"),
    ("square", r"sq0(?:atp|csp|idp)-[\w-]{22,43}"),
    ("square", r"EAAA[\w-]{60,}"),
    ("facebook", r"EAA[A-Za-z0-9]{90,}"),
    ("braintree", r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}"),
    ("plaid", r"access-(?:sandbox|development|production)-" + _UUID),
    ("flutterwave", r"FLWSECK(?:_TEST)?-[A-Za-z0-9]{12,}(?:-X)?"),
    ("digitalocean", r"do[opr]_v1_[0-9a-f]{64}"),
    ("heroku", r"HRKU-(?:AA[\w-]{50,}|" + _UUID + ")"),
    ("fly", r"fo1_[\w-]{43}"),
    ("fly", r"fm[12](?:[ar])?_[A-Za-z0-9+/]{60,}={0,3}"),
    ("netlify", r"nf[pcoub]_[A-Za-z0-9]{36}"),
    ("cloudflare", r"v1\.0-[0-9a-f]{24}-[0-9a-f]{146}"),
    ("databricks", r"dapi[0-9a-f]{32}(?:-\d)?"),
    ("dynatrace", r"dt0c01\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    ("grafana", r"gl(?:c|sa)_[A-Za-z0-9+/_]{32,}={0,3}"),
    ("newrelic", r"NR(?:AK-[A-Z0-9]{27}|JS-[0-9a-f]{19}|II-[\w-]{32})"),
    ("sentry", r"sntry(?:u_[0-9a-f]{64}|s_[\w+/=-]{40,})"),
    ("linear", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}"),
    ("notion", r"(?:ntn_[A-Za-z0-9]{40,}|secret_[A-Za-z0-9]{43}(?![A-Za-z0-9]))"),
    ("figma", r"fig[dou]r?_[\w-]{40,}"),
    ("atlassian", r"AT[AC]TT3[\w=-]{60,}"),
    ("bitbucket", r"ATBB[A-Za-z0-9]{32}"),
    ("postman", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    ("airtable", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}"),
    ("hubspot", r"pat-(?:na|eu|ap)\d-" + _UUID),
    ("asana", r"[012]/\d{15,17}(?:/\d{15,17})?:[0-9a-f]{32}"),
    ("vault", r"hv[sbr]\.[\w-]{24,}"),
    ("terraform", r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,}"),
    ("pulumi", r"pul-[0-9a-f]{40}"),
    ("doppler", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{40,}"),
    ("1password", r"ops_eyJ[A-Za-z0-9+/]{100,}={0,3}"),
    ("1password", r"A3-[A-Z0-9]{6}-[A-Z0-9-]{11,13}(?:-[A-Z0-9]{5}){3}"),
    ("supabase", r"sb(?:p_[0-9a-f]{40}|_secret_[\w-]{20,})"),
    ("planetscale", r"pscale_(?:tkn|pw|oauth)_[\w.=-]{32,}"),
    ("neon", r"napi_[a-z0-9]{60,}"),
    ("mapbox", r"sk\.eyJ[\w-]{20,200}\.[\w-]{20,}"),
    ("age", r"AGE-SECRET-KEY-1[A-Z0-9]{50,}"),
    ("bitcoin", r"[5KL][1-9A-HJ-NP-Za-km-z]{50,51}(?![A-Za-z0-9])"),
    ("bitcoin", r"[xyz]prv[1-9A-HJ-NP-Za-km-z]{100,}"),
    ("nostr", r"nsec1[a-z0-9]{58}"),
    ("paseto", r"v[1-4]\.(?:local|public)\.[\w-]{20,}(?:\.[\w-]+)?"),
    ("macaroon", r"MDA[a-z][\w+/-]{60,}={0,2}"),
    ("fireworks", r"fw_[A-Za-z0-9]{22,}(?![A-Za-z0-9_])"),
    ("render", r"rnd_[A-Za-z0-9]{26,}"),
    ("twitch", r"oauth:[a-z0-9]{30}(?![A-Za-z0-9])"),
    ("zapier", r"hooks\.zapier\.com/hooks/catch/\d+/\w+"),
    ("vendor", r"(?:[a-z]{2,12}_)?(?:live|prod|api|key|cs|ck|sk|pat|tok|e2b|secret)_(?:[0-9a-f]{32,}|"
    r"(?=[A-Za-z-]{0,24}\d)[A-Za-z0-9-]{26,})(?![\w-])"),
    ("voyage", r"(?:pa|al)-[\w-]{43}(?![\w-])"),
    ("launchdarkly", r"(?:sdk|api)-" + _UUID),
    ("salesforce", r"00D[A-Za-z0-9]{12,15}![\w.]{60,}"),
    ("instagram", r"IG(?:QV|AA)[A-Za-z0-9]{60,}"),
    ("yandex", r"(?:AQVN|t1\.9eu|y[0-3]_AgA)[\w.-]{30,}"),
    ("confluent", r"cflt[A-Za-z0-9+/]{50,}={0,2}"),
    ("web3", r"(?:infura\.io|alchemy\.com|quiknode\.pro|alchemyapi\.io)/(?:v\d/|ws/v\d/)?[\w-]{30,}"),
    ("dropbox", r"sl\.(?:u\.)?[\w-]{100,}"),
    ("twitter", r"AAAAAAAAAAAAAAAAAAAA[A-Za-z0-9%]{50,}"),
    ("circleci", r"CCIPAT_[A-Za-z0-9]{22}_[0-9a-f]{40}"),
    ("buildkite", r"bk[ua]a_[0-9a-f]{40}"),
    ("sonar", r"sq[pua]_[0-9a-f]{40}"),
    ("artifactory", r"AKCp[A-Za-z0-9]{60,}"),
    ("artifactory", r"cmVmd[A-Za-z0-9]{59}"),
    ("alibaba", r"LTAI[A-Za-z0-9]{17,20}(?![A-Za-z0-9])"),
    ("tencent", r"AKID[A-Za-z0-9]{32}(?![A-Za-z0-9])"),
    ("prefect", r"pn[ub]_[A-Za-z0-9]{36}"),
    ("tailscale", r"tskey-(?:auth-|api-|client-|scim-)?[A-Za-z0-9]{6,}-[A-Za-z0-9]{16,}"),
    ("sourcegraph", r"sgp_(?:[0-9a-f]{16}_)?[0-9a-f]{40}"),
    ("openshift", r"sha256~[\w-]{43}"),
    ("octopus", r"API-[A-Z0-9]{26,32}(?![A-Za-z0-9])"),
    ("maxmind", r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk"),
    ("easypost", r"EZ[AT]K[A-Za-z0-9]{54}"),
    ("duffel", r"duffel_(?:test|live)_[\w=-]{43}"),
    ("readme", r"rdme_[a-z0-9]{70}"),
    ("typeform", r"tfp_[\w.=-]{59}"),
    ("mcpm", r"mcpm_[A-Za-z0-9]{6,}_[A-Za-z0-9]{20,}(?:_[0-9a-f]{8})?"),
    ("password_hash", r"\$(?:2[abxy]|5|6|y|apr1|argon2(?:id|i|d)|pbkdf2-sha256|scrypt)\$[./A-Za-z0-9$=,+-]{20,}"),
)  # fmt: skip

#: Where a word begins, also behind an escape of a text that was quoted twice.
_BEGIN: Final = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
#: A JWT (RFC 7519), or a JWE with its five parts; `eyJ` is how `{"` begins in base64. It begins where a run of its own
#: alphabet does, so that a run is read once.
_JWT: Final = re.compile(
    r"(?:(?<![\w-])|(?<=\\[nrt]))e(?:yJ|yA|wo)[\w-]{8,}+\."
    r"(?:[\w-]{8,}+\.[\w-]*+(?:\.[\w-]++\.[\w-]++)?|\.[\w-]{16,}+(?:\.[\w-]++){0,2})"
)
#: What follows the custom of most issuers, who put their name before what they drew: `name_` or `name-`, and a long
#: run of mixed characters. Ids of objects look like that too, and are shorter.
_CUSTOM: Final = re.compile(
    r"(?:(?<![\w./%@#-])|(?<=\\[nrt]))(?!sha\d|pk[_-]|pub|price_|file[_-]|rev-|build-|chunk-)[A-Za-z][a-z0-9A-Z]{1,11}"
    r"(?:[_-][a-z0-9]{1,8}){0,3}[_-](?=[\w-]{0,24}\d)([A-Za-z0-9][\w-]{29,511}+={0,2})(?![\w/.@-])"
)
_SHORTEST_CUSTOM: Final = 32
_UNCUSTOM: Final = re.compile(r"[0-9a-fA-F-]+|.*[-_][A-Za-z]{3,}[-_].*|.*[a-z]{10}.*|[A-Z_0-9-]+")
#: No token is shorter, nor without such a run of characters; what a run begins with may belong to an escape.
RUN: Final = re.compile(r"[A-Za-z0-9_\-./+=:$~%@!,\\]{17,}+")
_ANY: Final = re.compile(_BEGIN + "(?:" + "|".join(form for _, form in FORMATS) + ")")
_EACH: Final = tuple((issuer, re.compile(form)) for issuer, form in FORMATS)


def redact_tokens(text: str) -> str:
    """The text without credentials."""
    return RUN.sub(_of_run, text)


def _of_run(match: re.Match[str]) -> str:
    run = match[0]
    if "ey" in run or "ewo" in run:
        run = _JWT.sub("[redacted:jwt]", run)
    found = _ANY.sub(_without, run)
    return _CUSTOM.sub(_without_custom, found) if len(run) >= _SHORTEST_CUSTOM else found


def _without_custom(match: re.Match[str]) -> str:
    body = match[1]
    mixed = any(map(str.islower, body)) and (any(map(str.isupper, body)) or len(body) >= 40)
    return match[0] if not mixed or _UNCUSTOM.fullmatch(body) else "[redacted:token]"


def _without(match: re.Match[str]) -> str:
    found = match[0]
    issuer = next((issuer for issuer, form in _EACH if form.fullmatch(found)), "token")
    return f"[redacted:{issuer}]"
