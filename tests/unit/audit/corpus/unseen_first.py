"""The first set of secrets and look-alikes that was written without a look at the rules.

Of its 448 secrets 71.4 % were found at first, and 0.4 % of its 270 look-alikes were taken for secrets. The rules were
mended by it.
"""

# ruff: noqa: E501, E731, RUF001, UP031

from __future__ import annotations

import json

from tests.unit.audit.corpus import Case
from tests.unit.audit.corpus.made import Made


def first_unseen(seed: int) -> tuple[list[Case], list[Case]]:
    """Secrets and harmless values."""
    made = Made(seed)
    S, H, text = made.secret, made.harmless, made.text
    an, hx, up, b32, lo, dg, b64, b64u, uuid = (
        made.an,
        made.hx,
        made.up,
        made.b32,
        made.lo,
        made.dg,
        made.b64,
        made.b64u,
        made.uuid,
    )
    enc, e64, luhn, iban, group, jwt, pem = made.enc, made.e64, made.luhn, made.iban, made.group, made.jwt, made.pem

    def vend(label, token, frame="{}"):
        S("vendor " + label, text(frame.format(token)), token)

    vend("github pat classic", "ghp_" + an(36), "I've put {} in the runner")
    vend("github fine grained", "github_pat_11A" + an(19) + "_" + an(59), "use {} for the clone")
    vend("github server", "ghs_" + an(36))
    vend("github oauth", "gho_" + an(36), "exchanged code for {}.")
    vend("github refresh", "ghr_" + an(76))
    vend("gitlab pat", "glpat-" + an(20), "glab auth login --token {}")
    vend("gitlab routable pat", "glpat-" + b64u(27)[:27] + ".01." + lo(9))
    vend("gitlab runner", "glrt-" + an(20), "registered with {}")
    vend("gitlab deploy", "gldt-" + an(20))
    vend("gitlab trigger", "glptt-" + hx(40))
    vend("gitlab ci job", "glcbt-64_" + an(20))
    vend("aws access id", "AKIA" + b32(16), "found {} in the bucket policy")
    vend("aws sts id", "ASIA" + b32(16), "assumed as {}")
    k = an(19) + "/" + an(20)
    S(
        "aws credentials file",
        text(f"[default]\naws_access_key_id = AKIA{b32(16)}\naws_secret_access_key = {k}\nregion = eu-central-1"),
        k,
    )
    k = b64(300)
    S("aws session token export", {"command": f"export AWS_SESSION_TOKEN={k}\naws s3 ls"}, k[:60])
    k = "ABSK" + b64(80)
    vend("bedrock api key", k, "bedrock long term key: {}")
    vend("gcp api key", "AIza" + an(33) + "-q", "maps loads with key {} now")
    vend("gcp oauth secret", "GOCSPX-" + an(28))
    vend("gcp access", "ya29.a0A" + b64u(120), "token {} expires 3599")
    vend("gcp refresh", "1//0g" + b64u(40), "refresh with {}")
    k = an(3) + "8Q~" + an(34)
    vend("azure client secret", k, "app secret {} valid 24 months")
    k = b64(64)
    S(
        "azure storage conn",
        {
            "connectionString": f"DefaultEndpointsProtocol=https;AccountName=contosodata;AccountKey={k};EndpointSuffix=core.windows.net"
        },
        k,
    )
    k = b64(32)
    S(
        "azure service bus",
        text(f"Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={k}"),
        k,
    )
    k = b64(32).replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    S(
        "azure sas",
        {
            "url": f"https://contoso.blob.core.windows.net/c/f.txt?sv=2022-11-02&ss=b&se=2026-12-01T00%3A00Z&sp=r&sig={k}"
        },
        k,
    )
    vend("azure devops pat", b32(52).lower(), "AZURE_DEVOPS_EXT_PAT={} az repos list")
    vend("openai project", "sk-proj-" + an(74) + "T3BlbkFJ" + an(74), "OPENAI: {}")
    vend("openai old", "sk-" + an(20) + "T3BlbkFJ" + an(20))
    vend("openai svc", "sk-svcacct-" + an(60))
    vend("anthropic", "sk-ant-api03-" + b64u(70)[:93] + "AA")
    vend("anthropic oauth", "sk-ant-oat01-" + b64u(70)[:93] + "AA")
    vend("huggingface", "hf_" + an(34), "huggingface-cli login --token {}")
    vend("replicate", "r8_" + an(37))
    vend("groq", "gsk_" + an(52), "the groq one is {}")
    vend("xai", "xai-" + an(80))
    vend("perplexity", "pplx-" + an(48))
    vend("openrouter", "sk-or-v1-" + hx(64))
    vend("deepseek", "sk-" + hx(32), "deepseek {}")
    vend("cohere env", an(40), "COHERE_API_KEY={}")
    vend("mistral env", an(32), "export MISTRAL_API_KEY='{}'")
    vend("together", "tgp_v1_" + b64u(32))
    vend("elevenlabs", "sk_" + hx(48), "voice key {}")
    vend("langsmith", "lsv2_pt_" + hx(32) + "_" + hx(10))
    vend("pinecone", "pcsk_" + an(5) + "_" + an(63))
    vend("nvidia", "nvapi-" + b64u(48))
    vend("fireworks", "fw_" + an(24))
    vend("tavily", "tvly-dev-" + an(32))
    vend("firecrawl", "fc-" + hx(32))
    vend("exa header", uuid(), "curl -H 'x-api-key: {}' https://api.exa.ai/search")
    vend("voyage", "pa-" + b64u(32))
    vend("cerebras", "csk-" + lo(48))
    vend("wandb netrc", hx(40), "machine api.wandb.ai\n  login user\n  password {}")
    vend("slack bot", f"xoxb-{dg(12)}-{dg(13)}-{an(24)}")
    vend("slack user", f"xoxp-{dg(12)}-{dg(12)}-{dg(13)}-{hx(32)}")
    vend("slack app", f"xapp-1-A{up(10)}-{dg(13)}-{hx(64)}")
    k = f"T{up(8)}/B{up(10)}/{an(24)}"
    S("slack webhook", {"webhook": f"https://hooks.slack.com/services/{k}"}, k)
    vend("slack cookie", "xoxd-" + an(60))
    vend("slack rotating", "xoxe.xoxb-1-" + an(140))
    k = an(68)
    S("discord webhook", {"url": f"https://discord.com/api/webhooks/{dg(18)}/{k}"}, k)
    vend("discord bot", "MTE" + an(21) + "." + an(6) + "." + an(38), "client.login('{}')")
    vend("telegram bot", dg(10) + ":AA" + an(33), "https://api.telegram.org/bot{}/sendMessage")
    k = dg(10) + ":AAH" + an(32)
    S("telegram env", text(f"BOT={k}"), k)
    vend("stripe live", "sk_live_" + an(99), "charge with {}")
    vend("stripe restricted", "rk_live_" + an(40))
    vend("stripe test", "sk_test_" + an(24))
    vend("stripe whsec", "whsec_" + an(32), "endpoint signing {}")
    vend("square", "EAAA" + b64u(45))
    vend("square secret", "sq0csp-" + b64u(32))
    vend("paypal braintree", f"access_token$production${lo(16)}${hx(32)}")
    vend("razorpay secret", an(24), 'razorpay.Client(auth=("rzp_live_ab12CD34ef56Gh", "{}"))')
    vend("adyen", "AQE" + b64(80), "X-API-Key: {}")
    vend("mollie", "live_" + an(30), "mollie key {}")
    vend("plaid", f"access-production-{uuid()}")
    vend("shopify", "shpat_" + hx(32))
    vend("shopify shared", "shpss_" + hx(32))
    vend("twilio sid key", "SK" + hx(32), "twilio api key {}")
    vend("twilio auth", hx(32), 'Client("AC0123456789abcdef0123456789abcdef", "{}")')
    vend("sendgrid", f"SG.{b64u(16)}.{b64u(32)}")
    vend("mailgun", f"key-{hx(32)}")
    vend("mailchimp", hx(32) + "-us14", "mailchimp {}")
    vend("postmark", uuid(), "X-Postmark-Server-Token: {}")
    vend("resend", f"re_{an(8)}_{an(24)}")
    vend("brevo", f"xkeysib-{hx(64)}-{an(16)}")
    vend("intercom", "dG9r" + b64(45), "Authorization: Bearer {}")
    vend("npm", "npm_" + an(36), "//registry.npmjs.org/:_authToken={}")
    vend("pypi", "pypi-AgEIcHlwaS5vcmc" + b64u(110))
    vend("rubygems", "rubygems_" + hx(48))
    vend("dockerhub", "dckr_pat_" + b64u(20), "echo {} | docker login -u bob --password-stdin")
    vend("cargo", "cio" + an(32), "cargo login {}")
    vend("nuget", "oy2" + lo(43))
    vend("jfrog", "AKCp8" + an(68))
    vend("artifactory ref", "cmVmdGtu" + an(56))
    vend("quay robot", up(64), "docker login quay.io -u 'org+ci' -p '{}'")
    vend("digitalocean", "dop_v1_" + hx(64))
    vend("linode", hx(64), "LINODE_TOKEN: {}")
    vend("hetzner", an(64), "HCLOUD_TOKEN={}")
    vend("vultr", b32(36), "VULTR_API_KEY={}")
    vend("heroku", "HRKU-AA" + an(58))
    vend("fly", "FlyV1 fm2_" + b64(90))
    vend("render", "rnd_" + an(28))
    vend("vercel", an(24), "vercel --token {} --prod")
    vend("netlify", "nfp_" + an(36))
    vend("supabase", "sbp_" + hx(40))
    vend("supabase secret", "sb_secret_" + an(22) + "_" + an(8))
    vend("planetscale", "pscale_tkn_" + b64u(32))
    vend("planetscale pw", "pscale_pw_" + b64u(32))
    vend("neon", "napi_" + lo(64))
    vend("cloudflare", b64u(30), "CLOUDFLARE_API_TOKEN={} wrangler deploy")
    vend("cloudflare global", hx(37), "-H 'X-Auth-Email: ops@corp.example' -H 'X-Auth-Key: {}'")
    vend("cloudflare ca", "v1.0-" + hx(24) + "-" + hx(146))
    vend("databricks", "dapi" + hx(32))
    vend("snowflake env", "Zx9!kk2-Lq", "SNOWFLAKE_PASSWORD={}")
    vend("confluent", "cflt" + b64(44))
    vend("grafana sa", "glsa_" + an(32) + "_" + hx(8))
    vend("grafana cloud", "glc_" + e64('{"o":"123","n":"x","k":"' + an(24) + '"}'))
    vend("newrelic", "NRAK-" + up(27))
    vend("datadog", hx(32), "DD_API_KEY={}")
    vend("datadog app", hx(40), "dd-application-key: {}")
    vend("sentry", "sntrys_" + b64(120))
    vend("sentry user", "sntryu_" + hx(64))
    vend("pagerduty", "u+" + an(18), "Authorization: Token token={}")
    vend("opsgenie", uuid(), "Authorization: GenieKey {}")
    vend("honeycomb", "hcaik_" + lo(58))
    vend("dynatrace", f"dt0c01.{b32(24)}.{b32(64)}")
    vend("sumologic", an(64), 'accessKey = "{}"')
    vend("splunk hec", uuid(), "Authorization: Splunk {}")
    vend("posthog", "phx_" + an(43))
    vend("segment", an(32), 'analytics = Analytics(write_key="{}")')
    vend("algolia admin", hx(32), "X-Algolia-API-Key: {}")
    vend("launchdarkly", f"sdk-{uuid()}", "LD sdk key {}")
    vend("doppler", "dp.pt." + an(43))
    vend("vault", "hvs." + b64u(70))
    vend("vault old", "s." + an(24), "X-Vault-Token: {}")
    vend("tfc", f"{an(14)}.atlasv1.{b64u(50)}")
    vend("pulumi", "pul-" + hx(40))
    vend("1password", "ops_" + enc({"signInAddress": "my.1password.com", "secretKey": an(40)}))
    vend("age", "AGE-SECRET-KEY-1" + b32(58))
    vend("atlassian", "ATATT3xFfGF0" + b64u(120) + "=" + up(8))
    vend("bitbucket", "ATBB" + an(32))
    vend("jira basic", "ATCTT3xFfG" + b64u(80))
    vend("linear", "lin_api_" + an(40))
    vend("notion", "ntn_" + an(46))
    vend("notion old", "secret_" + an(43))
    vend("asana", f"2/{dg(16)}/{dg(16)}:{hx(32)}", "Authorization: Bearer {}")
    vend("airtable", f"pat{an(14)}.{hx(64)}")
    vend("figma", "figd_" + b64u(30))
    vend("hubspot", f"pat-eu1-{uuid()}")
    vend("salesforce", f"00D{an(12)}!AQ{an(90)}", "sid {}")
    vend("zendesk", an(40), "-u agent@corp.example/token:{}")
    vend("okta", "00" + b64u(30), "Authorization: SSWS {}")
    vend("auth0 client secret", b64u(48), "client_secret={}&grant_type=client_credentials")
    vend("typeform", "tfp_" + an(44) + "_" + an(14))
    vend("contentful", "CFPAT-" + b64u(32))
    vend("mapbox secret", "sk.eyJ1" + b64u(60) + "." + b64u(16))
    vend("facebook", "EAAC" + an(160))
    vend("instagram", "IGQV" + an(140))
    vend("twitter bearer", "AAAAAAAAAAAAAAAAAAAAA" + an(70) + "%3D" + an(50))
    vend("tailscale", f"tskey-auth-k{an(11)}CNTRL-{an(32)}")
    vend("ngrok", an(27) + "_" + an(20), "ngrok config add-authtoken {}")
    vend("circleci", f"CCIPAT_{an(22)}_{hx(40)}")
    vend("buildkite", "bkua_" + hx(40))
    vend("jenkins", "11" + hx(32), "curl -u admin:{} https://ci.corp.example/job/x/build")
    vend("sonar", "squ_" + hx(40))
    vend("snyk", uuid(), "snyk auth {}")
    vend("codecov", uuid(), "CODECOV_TOKEN={} bash <(curl -s x)")
    vend("postman", f"PMAK-{hx(24)}-{hx(34)}")
    vend("prefect", "pnu_" + an(36))
    vend("clojars", "CLOJARS_" + hx(60))
    vend("aiven", "AVNS_" + an(19), "service password {}")
    vend("easypost", "EZAK" + an(54))
    vend("flutterwave", "FLWSECK-" + hx(32) + "-X")
    vend("ops alibaba", "LTAI5t" + an(18))
    vend("tencent", "AKID" + an(32))
    vend("yandex", "AQVN" + b64u(27))
    vend("infura url", hx(32), "https://mainnet.infura.io/v3/{}")
    vend("alchemy url", b64u(24), "https://eth-mainnet.g.alchemy.com/v2/{}")
    for scheme, pw in [
        ("postgres", "s3cr3tPa55"),
        ("postgresql+asyncpg", "hunter2"),
        ("mysql", "Pa%24%24w0rd"),
        ("mongodb+srv", "qWe123rty"),
        ("redis", "foobared"),
        ("amqps", "guest-42x"),
        ("mssql+pyodbc", "Str0ng!Passw0rd"),
        ("ftp", "letmein9"),
        ("https", "gh-bot-pw-1"),
        ("smtp", "m4ilpw"),
        ("ldap", "adminpw77"),
        ("clickhouse", "ch_pw_1"),
    ]:
        S(f"url {scheme}", text(f"connecting to {scheme}://app:{pw}@db-1.internal:5432/main?x=1 ..."), pw)
    S("redis no user", {"args": ["redis-cli", "-u", "redis://:Tq8vLm2@cache:6379/0"]}, "Tq8vLm2")
    S("url token user", {"cmd": "git clone https://x-access-token:v1x9K22mmQ@github.com/a/b.git"}, "v1x9K22mmQ")
    S("url at in pw", text("postgres://svc:p@ssw0rd!x@10.2.3.4/orders"), "p@ssw0rd!x")
    S("adonet", text("Server=tcp:sql1,1433;Database=crm;User ID=sa;Password=Winter2026!;Encrypt=True;"), "Winter2026!")
    S("odbc pwd braces", {"dsn": "DRIVER={ODBC Driver 18 for SQL Server};SERVER=db;UID=sa;PWD={x;y}}z!1};"}, "x;y}}z!1")
    S("jdbc", text("jdbc:mysql://db:3306/crm?user=root&password=toor77&useSSL=false"), "toor77")
    S("jdbc oracle", text("jdbc:oracle:thin:scott/t1ger99@//ora1:1521/XE"), "t1ger99")
    S("libpq", text("host=db1 port=5432 dbname=shop user=shop password='my pw 12' sslmode=require"), "my pw 12")
    S("pgpass", text("db.internal:5432:orders:orders_rw:Vf3-kkq81"), "Vf3-kkq81")
    S("sqlplus", {"command": "sqlplus hr/Oracle123@ORCL"}, "Oracle123")
    S("rabbit erl", text('{default_pass, <<"r4bb1tpw">>}.'), "r4bb1tpw")
    S("sentry dsn", text(f"SENTRY_DSN=https://{(k := hx(32))}@o123.ingest.sentry.io/456"), k)
    k = an(32)
    S("curl bearer", {"command": f'curl -sS -H "Authorization: Bearer {k}" https://api.corp.example/v1/me'}, k)
    k = e64("svc:Blau!kraut7")
    S("basic header", text(f"GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {k}\r\nAccept: */*\r\n\r\n"), k)
    S("curl -u", {"command": "curl -X POST -u deploy:Kn0ck-Kn0ck https://nexus.corp.example/repository"}, "Kn0ck-Kn0ck")
    S("curl --user=", {"command": "curl --user='bob:ros3bud' ftp://files"}, "ros3bud")
    S("wget", {"command": "wget --user=bob --password=hocuspocus https://x/y.tgz"}, "hocuspocus")
    S("httpie", {"command": "http -a bob:s3same GET https://x/y"}, "s3same")
    k = hx(40)
    S("cookie", text(f"Cookie: theme=dark; sessionid={k}; lang=de"), k)
    k = b64u(60)
    S(
        "set-cookie",
        text(f"HTTP/2 200\nset-cookie: __Host-auth={k}; Path=/; Secure; HttpOnly\ncontent-type: text/html"),
        k,
    )
    k = an(26)
    S("phpsessid", {"headers": {"cookie": f"PHPSESSID={k}; consent=1"}}, k)
    k = an(64)
    S("asp cookie", text(f"curl -b '.AspNetCore.Cookies={k}' https://x"), k)
    k = hx(64)
    S(
        "digest",
        text(f'Authorization: Digest username="bob", realm="x", nonce="{hx(16)}", uri="/", response="{k[:32]}"'),
        k[:32],
    )
    k = hx(64)
    S(
        "sigv4",
        text(
            f"Authorization: AWS4-HMAC-SHA256 Credential=AKIA{b32(16)}/20261122/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature={k}"
        ),
        k,
    )
    k = hx(64)
    S(
        "presigned",
        {
            "url": f"https://b.s3.amazonaws.com/o?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261122T000000Z&X-Amz-Expires=3600&X-Amz-Signature={k}"
        },
        k,
    )
    k = an(30)
    S("url access_token", {"url": f"https://api.corp.example/cb#access_token={k}&token_type=bearer&expires_in=3600"}, k)
    k = an(20)
    S("url api_key", text(f"fetching https://api.weather.example/v1?q=Berlin&appid=1&api_key={k} failed: 403"), k)
    k = an(40)
    S("oauth code", {"url": f"https://app.example/callback?code=4/0A{k}&state=x&scope=email"}, k)
    k = an(43)
    S("pkce", text(f"grant_type=authorization_code&code=SplxlOBeZQ&code_verifier={k}&client_id=web"), k)
    k = an(50)
    S("refresh form", {"body": f"grant_type=refresh_token&refresh_token={k}"}, k)
    S("ropc form", {"body": "grant_type=password&username=bob&password=open%20sesame1"}, "open%20sesame1")
    k = hx(32)
    S("py dict headers", text("requests.get(url, headers={'X-Api-Key': '%s', 'Accept': '*/*'})" % k), k)
    k = hx(32)
    S("js fetch", text("fetch(u, { headers: { authorization: `token %s` } })" % k), k)
    S("requests auth", text('requests.post(url, auth=("svc-bot", "p4rsnip-soup"))'), "p4rsnip-soup")
    S("HTTPBasicAuth", text('s.auth = HTTPBasicAuth("svc", "blu3berry")'), "blu3berry")
    k = hx(40)
    S("csrf", text(f'<input type="hidden" name="csrf_token" value="{k}">'), k)
    k = b64(400)
    S(
        "saml",
        {"body": "SAMLResponse=" + (k2 := e64('<samlp:Response xmlns:samlp="urn:oasis">' + k)).replace("+", "%2B")},
        k2[40:120].replace("+", "%2B"),
    )
    S(
        "wsse",
        text(
            '<wsse:UsernameToken><wsse:Username>bob</wsse:Username><wsse:Password Type="x#PasswordText">c4rr0t</wsse:Password></wsse:UsernameToken>'
        ),
        "c4rr0t",
    )
    k = an(44)
    S("proxy-authorization", text(f"> CONNECT a:443\n> Proxy-Authorization: Negotiate {k}==\n>"), k)
    k = b64u(50)
    S("ws query", {"url": f"wss://rt.example/socket?ticket={k}"}, k)
    k = an(32)
    S("custom hdr", text(f"x-amz-security-token: {k}"), k)
    k = an(32)
    S("private-token", {"command": f"curl --header 'PRIVATE-TOKEN: {k}' https://gl/api"}, k)
    k = an(24)
    S("magic link", text(f"Click https://app.example/login/magic?t=1&otp_token={k} to sign in"), k)
    k = an(40)
    S("reset link", text(f"https://app.example/reset-password/{k}"), k)
    S("dotenv", text("DB_HOST=db\nDB_PASSWORD=correcthorse\nDEBUG=0"), "correcthorse")
    S("dotenv quoted", text('APP_NAME=x\nexport MAIL_PASS="Gr33n Tea"\n'), "Gr33n Tea")
    S("dotenv PGPASSWORD", {"command": "PGPASSWORD=tulip88 psql -h db -U app -c 'select 1'"}, "tulip88")
    S("dotenv secret_key django", text("SECRET_KEY = 'django-insecure-8#x&k2@1lq(v_n$z^3'"), "8#x&k2@1lq(v_n$z^3")
    S("laravel", text(f"APP_KEY=base64:{(k := b64(32))}"), k)
    S("rails", text(f"production:\n  secret_key_base: {(k := hx(128))}"), k)
    S("yaml nested", text("datasource:\n  username: sa\n  password: y4mlpw # change me\n"), "y4mlpw")
    S("yaml block", text("password: |\n  line-Secret-1\nport: 1"), "line-Secret-1")
    S("compose", text("environment:\n  - POSTGRES_USER=app\n  - POSTGRES_PASSWORD=c0mp0se\n"), "c0mp0se")
    S("k8s env", text("env:\n- name: DB_PASSWORD\n  value: kub3pw\n- name: MODE\n  value: prod"), "kub3pw")
    S(
        "k8s env json",
        {"env": [{"name": "SMTP_PASSWORD", "value": "jsonkub3"}, {"name": "MODE", "value": "prod"}]},
        "jsonkub3",
    )
    S(
        "k8s secret",
        text(
            f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\ndata:\n  url: {(k := e64('postgres://a:b@c/d'))}\n  pin: {(k2 := e64('secretpin1'))}"
        ),
        k,
        k2,
    )
    S("k8s stringData", text("kind: Secret\nstringData:\n  conn: opensesame-77\n"), "opensesame-77")
    S(
        "kubeconfig",
        text(
            f"users:\n- name: admin\n  user:\n    client-certificate-data: LS0tLS1CRUdJTg==\n    client-key-data: {(k := e64(pem('RSA PRIVATE KEY', 200)))}\n"
        ),
        k[80:160],
    )
    S("dockerconfigjson", text('{"auths":{"registry.corp.example":{"auth":"%s"}}}' % (k := e64("ci:Reg1stry!"))), k)
    S("toml", text('[database]\nuser = "x"\npassword = "t0ml-pw"\n'), "t0ml-pw")
    S("ini", text("[client]\nuser=root\npassword=1n1pw\n"), "1n1pw")
    S("properties", text("spring.datasource.password=spr1ng\nspring.jpa.show-sql=true"), "spr1ng")
    S(
        "hcl",
        text(
            'variable "x" {}\nresource "aws_db_instance" "d" {\n  username = "root"\n  master_password = "hcl-pw-3"\n}'
        ),
        "hcl-pw-3",
    )
    S("tfvars", text(f'do_token    = "{(k := hx(40))}"\nregion = "fra1"'), k)
    S("tfvars default", text('variable "db_password" {\n  type    = string\n  default = "d3faultpw"\n}'), "d3faultpw")
    S("dockerfile ENV", text("FROM x\nENV ADMIN_PASSWORD sw0rdfish\nRUN y"), "sw0rdfish")
    S("dockerfile ARG", text(f"ARG NPM_TOKEN={(k := uuid())}\n"), k)
    S("docker run", {"command": "docker run -d -e MYSQL_ROOT_PASSWORD=r00tpw -p 3306:3306 mysql:8"}, "r00tpw")
    S("powershell", text('$password = ConvertTo-SecureString "Pow3rSh3ll!" -AsPlainText -Force'), "Pow3rSh3ll!")
    S("powershell env", text('$env:ARM_CLIENT_SECRET = "ab~cd.ef-12"'), "ab~cd.ef-12")
    S("net user", {"command": "net user svc_backup Qwerty!234 /add"}, "Qwerty!234")
    S("setx", {"command": "setx API_SECRET zz91kkq2"}, "zz91kkq2")
    S("mysql -p", {"command": "mysql -uroot -phunter22 shop < dump.sql"}, "hunter22")
    S("sshpass", {"command": "sshpass -p 'n0pe-n0pe' ssh root@10.0.0.1"}, "n0pe-n0pe")
    S("docker login", {"command": "docker login -u bob -p d0ckerpw registry.x"}, "d0ckerpw")
    S("redis-cli -a", {"command": "redis-cli -h c -a r3disAuth ping"}, "r3disAuth")
    S("openssl passin", {"command": "openssl rsa -in k.pem -passin pass:k3ypass -out o.pem"}, "k3ypass")
    S("htpasswd -b", {"command": "htpasswd -bc .htpasswd bob b0bspw"}, "b0bspw")
    S("chpasswd", {"command": "echo 'root:ch4ngeme!' | chpasswd"}, "ch4ngeme!")
    S("sudo -S", {"command": "echo sud0pw | sudo -S apt update"}, "sud0pw")
    S("ldapsearch -w", {"command": "ldapsearch -x -D cn=admin,dc=x -w ld4ppw -b dc=x"}, "ld4ppw")
    S("zip -P", {"command": "zip -P z1ppw -r a.zip dir"}, "z1ppw")
    S("keytool", {"command": "keytool -list -keystore k.jks -storepass changeit9"}, "changeit9")
    S("smbclient", {"command": "smbclient //srv/share -U 'CORP\\bob%Smb!pass1'"}, "Smb!pass1")
    S(
        "helm set",
        {"command": "helm install pg bitnami/postgresql --set auth.postgresPassword=h3lmpw,replicas=2"},
        "h3lmpw",
    )
    S(
        "kubectl literal",
        {"command": "kubectl create secret generic s --from-literal=dbpass=l1teral --from-literal=k=2secret2"},
        "l1teral",
        "2secret2",
    )
    S("az login", {"command": "az login --service-principal -u 1111 -p az~Secr3t.x --tenant t"}, "az~Secr3t.x")
    S("mongosh", {"command": "mongosh --host m -u root -p m0ngopw --authenticationDatabase admin"}, "m0ngopw")
    S("restic", text("RESTIC_PASSWORD='b4ckup pw'"), "b4ckup pw")
    S("gpg passphrase", {"command": "gpg --batch --passphrase 's1gn me' -c f"}, "s1gn me")
    S("ansible", text("ansible_become_pass: b3come\nansible_user: root"), "b3come")
    S("wifi", text('network={\n ssid="home"\n psk="w1fi-key-99"\n}'), "w1fi-key-99")
    S("wireguard", text(f"[Interface]\nPrivateKey = {(k := b64(32))}\nAddress = 10.0.0.2/32"), k)
    S("netrc one line", text("machine ftp.x login bob password n3trcpw"), "n3trcpw")
    S(
        "maven settings",
        text("<server><id>nexus</id><username>ci</username><password>m4venpw</password></server>"),
        "m4venpw",
    )
    S(
        "appsettings json str",
        {"content": json.dumps({"ConnectionStrings": {"Default": "Server=x;User Id=u;Password=j5onpw;"}})},
        "j5onpw",
    )
    S("web.config", text('<add key="SmtpPassword" value="xmlpw11" />'), "xmlpw11")
    S("php define", text("define('DB_PASSWORD', 'phpw0rd');"), "phpw0rd")
    S("ruby", text('config.secret_token = "rb-t0ken-zz"'), "rb-t0ken-zz")
    S("go const", text('const apiSecret = "g0secret77"'), "g0secret77")
    S("java", text('private static final String DB_PASSWORD = "j4vapw";'), "j4vapw")
    S("python kw", text('connect(host="x", user="u", passwd="pyk3pw")'), "pyk3pw")
    S("js obj", text("const c = { user: 'u', pass: 'jspw-1' };"), "jspw-1")
    S("csharp", text('var cred = new NetworkCredential("bob", "c#pw-9");'), "c#pw-9")
    S("vim modeline nothing pw", text('password="with \\"quote\\" in1"'), 'with \\"quote\\" in1')
    S("cli --password space", {"args": ["--user", "bob", "--password", "arr4ypw"]}, "arr4ypw")
    S("cli joined", {"args": ["--api-key=" + (k := an(20)), "--verbose"]}, k)
    S("authorized snmp", text("snmp-server community c0mmun1ty RO"), "c0mmun1ty")
    S("cisco", text("username admin privilege 15 secret 0 C1scoPw"), "C1scoPw")
    S("cisco enable", text("enable secret 5 $1$mERr$hx5rVt7rPNoS4wqbXKX7m0"), "hx5rVt7rPNoS4wqbXKX7m0")
    S("shadow", text("bob:$6$rounds=5000$saltsalt$" + (k := an(86)) + ":19000:0:99999:7:::"), k)
    S("bcrypt", text("htpasswd: bob:$2y$10$" + (k := an(53))), k)
    S("argon", text("$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$" + (k := b64u(32))), k)
    S("create user mysql", {"sql": "CREATE USER 'app'@'%' IDENTIFIED BY 'sqlpw-1';"}, "sqlpw-1")
    S("create role pg", {"query": "CREATE ROLE app LOGIN PASSWORD 'pgsqlpw2' VALID UNTIL '2027-01-01'"}, "pgsqlpw2")
    S("alter user", {"query": "ALTER USER postgres WITH ENCRYPTED PASSWORD 'alt3r';"}, "alt3r")
    S("mssql login", {"query": "CREATE LOGIN bob WITH PASSWORD = N'Mss!ql9', CHECK_POLICY = ON"}, "Mss!ql9")
    S("oracle identified", {"query": "ALTER USER scott IDENTIFIED BY Tiger2026 ACCOUNT UNLOCK"}, "Tiger2026")
    S("insert password", {"query": "INSERT INTO users (email, password) VALUES ('a@x', 'plainpw1')"}, "plainpw1")
    S("update set", {"query": "UPDATE users SET password = 'upd4ted', x = 1 WHERE id = 3"}, "upd4ted")
    S("where token", {"query": f"SELECT * FROM sessions WHERE token = '{(k := hx(32))}'"}, k)
    S("pgcrypto", {"query": "SELECT crypt('pgcrypt0', gen_salt('bf'))"}, "pgcrypt0")
    S("mysql function", {"query": "SET PASSWORD FOR 'bob'@'localhost' = PASSWORD('m5pw-x')"}, "m5pw-x")
    S(
        "snowflake stage",
        {"query": "CREATE STAGE s CREDENTIALS=(AWS_KEY_ID='x' AWS_SECRET_KEY='" + (k := an(40)) + "')"},
        k,
    )
    S("clickhouse", {"query": "SELECT * FROM remote('h:9000', db, t, 'user', 'chr3mote')"}, "chr3mote")
    k = pem("RSA PRIVATE KEY", 600)
    S("pem rsa", text("here:\n" + k), k[100:160], k[400:450])
    k = pem("PRIVATE KEY", 120, "\\n")
    S("pem escaped", {"private_key": k}, k[40:90])
    k = pem("PRIVATE KEY", 120, "\\n")
    S("pem escaped in str", text('{"type":"service_account","private_key":"' + k + '\\n"}'), k[40:90])
    k = pem("OPENSSH PRIVATE KEY", 300)
    S("openssh truncated", text("cat ~/.ssh/id_ed25519\n" + k[:300]), k[60:120], k[200:250])
    k = pem("EC PRIVATE KEY", 120, " ")
    S("pem one line spaces", text(k), k[50:90])
    k = pem("ENCRYPTED PRIVATE KEY", 200)
    S("pem enc", {"k": k}, k[60:120])
    k = pem("PGP PRIVATE KEY BLOCK", 300)
    S("pgp", text(k), k[100:160])
    k = pem("RSA PRIVATE KEY", 300, "\r\n    ")
    S("pem indented", text("key: |\n    " + k), k[80:130])
    k = pem("RSA PRIVATE KEY", 300, "\\\\n")
    S("pem double escaped", text(k), k[80:130])
    k = (
        "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\n"
        + (p := b64(36))
        + "\nPrivate-MAC: "
        + hx(64)
    )
    S("putty", text(k), p)
    S("jwk", {"kty": "EC", "crv": "P-256", "x": b64u(32), "d": (k := b64u(32))}, k)
    S("jwk in str", text(json.dumps({"kty": "oct", "k": (k := b64u(32)), "alg": "HS256"})), k)
    S("pem tail only", text((k := b64(48)) + "\n" + b64(30) + "\n-----END RSA PRIVATE KEY-----"), k)
    S("pem b64 whole", {"data": (k := e64(pem("PRIVATE KEY", 200)))}, k[60:140])
    S("hex eth key", text(f"PRIVATE_KEY=0x{(k := hx(64))}"), k)
    S(
        "mnemonic",
        text("seed phrase: abandon ladder vivid orbit canyon muffin tragic velvet spawn glide robot zebra"),
        "ladder vivid orbit",
    )
    S(
        "btc wif",
        text(
            "wallet 5" + (k := ("J" + an(49).replace("0", "1").replace("O", "P").replace("I", "J").replace("l", "m")))
        ),
        k,
    )
    S("nsec", text("nsec1" + (k := lo(58))), k)
    S("jwt prose", text("decoded " + (k := jwt()) + " ok"), k[-60:])
    S("jwt hs", {"x": (k := f"{enc({'alg': 'HS256'})}.{enc({'u': 1})}.{b64u(32)}")}, k[-40:])
    S("jwt unsigned", text(k := f"{enc({'alg': 'none'})}.{enc({'u': 'bob', 'role': 'admin'})}."), k[20:50])
    S(
        "jwe",
        text(k := f"{enc({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.{b64u(64)}.{b64u(12)}.{b64u(40)}.{b64u(16)}"),
        k[60:120],
    )
    S("jwe dir", text(k := f"{enc({'alg': 'dir', 'enc': 'A256GCM'})}..{b64u(12)}.{b64u(40)}.{b64u(16)}"), k[-30:])
    S("paseto", text(k := ("v4.local." + b64u(90))), k[20:60])
    S("paseto pub", text(k := ("v2.public." + b64u(90))), k[20:60])
    S("macaroon", text((k := ("MDAx" + b64u(90))) + " is the macaroon token"), k[10:60])
    S("biscuit", {"token": (k := ("En0KEwoE" + b64u(90)))}, k)
    S(
        "oauth resp",
        text(
            json.dumps(
                {
                    "access_token": (k := an(40)),
                    "token_type": "Bearer",
                    "refresh_token": (k2 := an(40)),
                    "id_token": (k3 := jwt()),
                }
            )
        ),
        k,
        k2,
        k3[-40:],
    )
    S("json twice", {"payload": json.dumps({"body": json.dumps({"password": "n3sted", "a": 1})})}, "n3sted")
    S("totp", text(f"otpauth://totp/ACME:bob?secret={(k := b32(32))}&issuer=ACME"), k)
    S("otp", text("Your verification code is 482913. Do not share it."), "482913")
    S("backup codes", text("Recovery codes: 8f3k-22lq, 91mz-0pxx, kq7t-44ab"), "8f3k-22lq", "91mz-0pxx", "kq7t-44ab")
    S("totp seed", {"totp_seed": (k := b32(16))}, k)
    S("card spaces", text("card " + (k := group(luhn("4", 16), 4)) + " exp 12/28"), k)
    S("card dashes", text(k := group(luhn("55", 16), 4, "-")), k)
    c = luhn("37", 15)
    S("amex", text(k := f"{c[:4]} {c[4:10]} {c[10:]}"), k)
    S("card plain", {"note": "PAN " + (k := luhn("4539", 16))}, k)
    S("card number json", {"pan": (k := int(luhn("5105", 16)))}, str(k))
    S("card dots", text(k := group(luhn("6011", 16), 4, ".")), k)
    S("cvv", text("CVV: 847, exp 03/29"), "847")
    S("track2", text(";" + (k := luhn("4", 16)) + "=28121011234?"), k)
    S("iban de spaces", text("IBAN " + (k := group(iban("DE", dg(18)), 4))), k)
    S("iban gb", text(k := iban("GB", "WEST" + dg(14))), k)
    S("iban fr", {"to": (k := group(iban("FR", dg(20) + "A12"), 4))}, k)
    S("iban nl", text("overmaken naar " + (k := iban("NL", "INGB" + dg(10))) + "."), k)
    S("ssn", text("SSN: 536-22-8145"), "536-22-8145")
    S("routing acct", text("account number: 000123456789, routing 021000021"), "000123456789")
    S("b64 env", text("echo " + (k := e64("DB_PASSWORD=abcdef12\nAPI_TOKEN=zzz\n")) + " | base64 -d > .env"), k)
    S("b64 json creds", {"blob": (k := e64(json.dumps({"user": "u", "password": "pw-b64"})))}, k)
    S("hex of pw", text("password (hex): " + (k := b"s3cretpw".hex())), k)
    S("url enc", {"q": "%7B%22password%22%3A%22urlencpw%22%7D"}, "urlencpw")
    S("html esc", text("&lt;password&gt;htmlpw1&lt;/password&gt;"), "htmlpw1")
    S("unicode esc", {"s": "{\\u0022password\\u0022:\\u0022unipw12\\u0022}"}, "unipw12")
    S("b64 basic kv", text("gzip auth=" + (k := e64("bob:hunter2222"))), k)
    S("log kv", text("2026-11-22T10:00:00Z INFO login user=bob password=l0gpw ip=1.2.3.4"), "l0gpw")
    S("log json", text('{"level":"debug","msg":"auth","apiKey":"%s"}' % (k := an(24))), k)
    S(
        "trace",
        text('File "a.py", line 3\n  conn = connect("db", "sa", password="tr4cepw")\nOperationalError'),
        "tr4cepw",
    )
    S("repr", text("Settings(host='x', db_password='reprpw1', port=1)"), "reprpw1")
    S("java map", text("props={user=sa, password=j4vamap, ssl=true}"), "j4vamap")
    S("go struct", text("{Host:db User:sa Password:g0struct Port:1}"), "g0struct")
    S("ruby hash", text('Parameters: {"user"=>{"email"=>"a@x", "password"=>"rubyh4sh"}}'), "rubyh4sh")
    S("php arr", text("[password] => phparr9"), "phparr9")
    S("auth failed", text("Access denied for user root (using password: hUnt3r99)"), "hUnt3r99")
    S("redis AUTH", text('1637.1 [0 127.0.0.1:1] "AUTH" "default" "r3dmon"'), "r3dmon")
    S("smtp trace", text("C: AUTH PLAIN " + (k := e64("\x00bob\x00smtppw12"))), k)
    S("ftp trace", text("---> USER bob\n331\n---> PASS ftpp4ss\n230"), "ftpp4ss")
    S("pop", text("+OK\nPASS p0ppw\n+OK"), "p0ppw")
    S("imap", text("a1 LOGIN bob im4ppw"), "im4ppw")
    S("env dump", text("HOME=/root\nTOKEN=" + (k := an(20)) + "\nPATH=/bin"), k)
    S("ps aux", text("root 1 0.0 java -Ddb.password=psaux1 -jar a.jar"), "psaux1")
    S("table", text("| user | password |\n|---|---|\n| bob | t4blepw |"), "t4blepw")
    S("csv", text("email,password,role\na@x.example,csvpw77,admin"), "csvpw77")
    S("diff", text("-password: oldpw12\n+password: newpw34"), "oldpw12", "newpw34")
    S("git remote", text("origin\thttps://oauth2:" + (k := an(20)) + "@gitlab.com/a/b.git (fetch)"), k)
    for label, s, pw in [
        ("en", "The password is Blue-Horse-42.", "Blue-Horse-42"),
        ("en2", "you can log in as admin with password hunter2", "hunter2"),
        ("en3", "My API key: {K}, please don't share", None),
        ("en4", "login: bob / s3same!1", "s3same!1"),
        ("en5", "user bob, pw xk99-qq", "xk99-qq"),
        ("en6", 'passphrase for the key is "correct horse battery staple"', "correct horse battery staple"),
        ("en7", "set the PIN to 4471", "4471"),
        ("de", "Das Passwort lautet Gartenzaun!9", "Gartenzaun!9"),
        ("de2", "Kennwort: Sommer2026", "Sommer2026"),
        ("de3", "Zugangsdaten: admin / Klee4Blatt", "Klee4Blatt"),
        ("fr", "Le mot de passe est Chat0nGris", "Chat0nGris"),
        ("fr2", "mot de passe : b4guette!", "b4guette!"),
        ("es", "La contraseña es Gat0Negro", "Gat0Negro"),
        ("es2", "clave: p1ragua", "p1ragua"),
        ("pt", "A senha é Abacax1!", "Abacax1!"),
        ("it", "la password è P1zzaM1a", "P1zzaM1a"),
        ("nl", "het wachtwoord is Fiets!23", "Fiets!23"),
        ("sv", "lösenordet är Älg-4711", "Älg-4711"),
        ("pl", "hasło: Zamek77x", "Zamek77x"),
        ("ru", "пароль: Zvezda88", "Zvezda88"),
        ("ru2", "Пароль от сервера — qwe!RTY9", "qwe!RTY9"),
        ("zh", "密码是 Panda#99", "Panda#99"),
        ("zh2", "密码：hello2026x", "hello2026x"),
        ("ja", "パスワードは Sakura123 です", "Sakura123"),
        ("ko", "비밀번호: Hangang77", "Hangang77"),
        ("tr", "şifre: Kedi!55", "Kedi!55"),
        ("ar", "كلمة المرور: Qamar99", "Qamar99"),
        ("uk", "пароль до бази: Kyiv-12x", "Kyiv-12x"),
        ("cs", "heslo je Brno!2026", "Brno!2026"),
        ("en8", "temporary password: `Tmp-9x9x`", "Tmp-9x9x"),
        ("en9", "**Password:** Mark-D0wn", "Mark-D0wn"),
        ("en10", "Username: bob\nPassword:\n  n3xtl1ne", "n3xtl1ne"),
        ("en11", "I changed it from oldOne1 to newOne2 (the db password)", None),
    ]:
        if label == "en3":
            pw = an(24)
            s = s.replace("{K}", pw)
        if pw:
            S("prose " + label, text(s), pw)
    for key in [
        "password",
        "passwd",
        "clientSecret",
        "API-KEY",
        "accessToken",
        "private_key_pem",
        "db_pass",
        "user_pwd",
        "authToken",
        "secretAccessKey",
        "signingKey",
        "webhook_secret",
        "X-Auth-Token",
        "bearer",
        "credentials",
        "passphrase",
        "pin_code",
        "encryption_key",
        "sessionToken",
        "storageAccountKey",
        "kennwort",
        "mot_de_passe",
        "contraseña",
        "master-key",
        "oauth_token_secret",
        "apikey",
        "otp",
        "security_answer",
        "cvc",
        "hmacKey",
    ]:
        v = made.rng.choice(["Wald-7-Rehe", "zebra99x", "q8!mmLp", "4471"]) if key != "cvc" else "311"
        S("key " + key, {"x": 1, key: v}, v)
    h = lambda label, t: H(label, text(t) if isinstance(t, str) else t)
    for s in [
        f"commit {hx(40)}\nAuthor: Bob",
        f"Merge {hx(7)} into main",
        f"sha256:{hx(64)}",
        f"integrity sha512-{b64(64)}",
        f"md5sum {hx(32)}  file.iso",
        f'ETag: "{hx(32)}"',
        f'ETag: W/"{hx(10)}-{hx(6)}"',
        f"request id {uuid()}",
        f"traceparent: 00-{hx(32)}-{hx(16)}-01",
        f"index {hx(7)}..{hx(7)} 100644",
        f"FROM python@sha256:{hx(64)}",
        f"resolved https://registry.npmjs.org/x/-/x-1.0.0.tgz#{hx(40)}",
        f"--hash=sha256:{hx(64)}",
        f"github.com/a/b v1.2.3 h1:{b64(32)}",
        f'"blake3": "{hx(64)}"',
        f"block 0x{hx(64)} mined",
        f"contract 0x{hx(40)}",
        f"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA{b64(90)}",
        f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{b64(33)} bob@host",
        pem("CERTIFICATE", 300),
        pem("PUBLIC KEY", 120),
        f"SHA256:{b64(32)[:43]} bob@host (ED25519)",
        f"fingerprint {group(hx(32), 2, ':')}",
        f"arn:aws:iam::{dg(12)}:role/Admin",
        f"vpc-{hx(17)} subnet-{hx(17)}",
        f"i-{hx(17)} running",
        "projects/p/secrets/db/versions/3",
        f"objectId {hx(24)}",
        f"ulid 01J{b32(23)}",
        f"nanoid {b64u(15)}",
        f"Slack channel C{up(10)} user U{up(10)}",
        f"customer cus_{an(14)} price price_{an(24)}",
        f"pi_{an(24)} succeeded",
        f"pk_live_{an(24)}",
        "ISBN 978-3-16-148410-0",
        "ISBN-10 0-306-40615-2",
        "call +49 30 1234 5678 90",
        "+1 (415) 555-2671",
        "0151 23456789",
        "order 4711-0815-2234-9981",
        "invoice 2026-000123456",
        f"tracking 1Z{up(16)}",
        "ticket JIRA-12345",
        "1700000000 1700000001",
        "timestamp 1732270000123456789",
        "IMEI 490154203237518x",
        "GTIN 4006381333931",
        "PO box 1234 5678",
        "IP 192.168.100.200:8443",
        "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        "00:1A:2B:3C:4D:5E",
        "52.520008, 13.404954",
        "ver 1.2.3-beta.4+build.567",
        "v20.11.1-nightly20261122abcdef0123",
        "3.141592653589793238462643",
        "chrome/131.0.6778.85 Safari/537.36",
        f"blob {b64u(9)}",
        f"https://youtu.be/{b64u(8)}",
        f"https://docs.google.com/document/d/{b64u(33)}/edit",
        f"https://drive.google.com/file/d/1{b64u(24)}/view",
        f"https://www.figma.com/file/{an(22)}/Design",
        f"https://github.com/a/b/commit/{hx(40)}",
        f"https://github.com/a/b/blob/{hx(40)}/src/x.py#L10",
        f"https://x.example/p?id={uuid()}&page=2",
        f"https://cdn.example/app.{hx(20)}.js",
        f"https://notion.so/My-Page-{hx(32)}",
        "https://x.example/?utm_source=n&utm_campaign=fall-2026&fbclid=no",
        f"https://open.spotify.com/track/{an(22)}",
        f"s3://bucket/2026/11/22/{uuid()}.parquet",
        f"gs://b/{hx(32)}/part-00001",
    ]:
        h("value " + s[:30], s)
    for s in [
        "export DB_PASSWORD=${DB_PASSWORD}",
        "password: {{ .Values.db.password }}",
        "password = var.db_password",
        "TOKEN=$(vault read -field=token secret/x)",
        "api_key=os.environ['API_KEY']",
        'token = os.getenv("GITHUB_TOKEN")',
        "const key = process.env.OPENAI_API_KEY;",
        "password: !vault |",
        "password=<your-password>",
        "API_KEY=YOUR_API_KEY_HERE",
        "password=********",
        "token: [REDACTED]",
        "secret: null",
        'password: ""',
        "password=changeme?".replace("changeme?", "${PW:?unset}"),
        "Authorization: Bearer $TOKEN",
        "Authorization: Bearer <token>",
        "curl -u $USER:$PASS https://x",
        'curl -H "Authorization: Bearer ${GH_TOKEN}" https://api',
        "postgres://user:${PGPASS}@host/db",
        "postgres://user:password@localhost/db".replace(":password", ""),
        "postgresql://localhost:5432/app",
        "redis://cache:6379/0",
        "mongodb://m1:27017,m2:27017/?replicaSet=rs0",
        "password = getpass.getpass()",
        "password: str",
        "def login(user: str, password: str) -> Token:",
        "if password == confirm_password:",
        "self.password = password",
        "password_hash = hash_password(password)",
        "token = next(tokens)",
        "token := lexer.NextToken()",
        "const token = await getToken();",
        "secretKeyRef:\n  name: db\n  key: password",
        "password_file: /run/secrets/db",
        "POSTGRES_PASSWORD_FILE=/run/secrets/pg",
        "--password-stdin",
        "docker login --username bob --password-stdin",
        "ALTER USER bob PASSWORD NULL",
        "CREATE USER bob IDENTIFIED WITH auth_socket",
        "password VARCHAR(255) NOT NULL",
        "password TEXT",
        "SELECT id, password_hash FROM users WHERE email = ?",
        "token_type: bearer",
        "max_tokens: 4096",
        "tokens used: 1532",
        "prompt_tokens=120 completion_tokens=44",
        "total_tokens: 164",
        "tokenizer: cl100k_base",
        "token limit 200000",
        "primary_key: id",
        "key: value",
        "keyboard: qwertz",
        "sort_key = created_at",
        "partition key: tenant_id",
        "public_key: ./id.pub",
        "foreign key (user_id)",
        "secret santa is on 12 December",
        "password policy: minimum 12 characters",
        "Passwords must contain a digit",
        "I forgot my password, can you help?",
        "The password is too short.",
        "the password was changed yesterday",
        "Your password is incorrect",
        "password reset requested",
        "password is required",
        "Invalid token",
        "token expired",
        "unexpected token '}' at line 3",
        "The token is invalid or has expired",
        "Bearer authentication is required",
        "Basic authentication is used",
        "Use basic auth over TLS",
        "Das Passwort ist falsch.",
        "Das Passwort wurde geändert",
        "Le mot de passe est incorrect",
        "La contraseña es obligatoria",
        "пароль неверный",
        "密码错误",
        "パスワードが間違っています",
        "please rotate the API key every 90 days",
        "API key authentication vs OAuth",
        "the secret of success is patience",
        "pin this message",
        "PIN the version in package.json",
        "author: Bob",
        "authority: example.com",
        "passenger: Bob Miller",
        "bypass: true",
        "compass heading 270",
        "pass: 12, fail: 0",
        "tests passed: 120",
        "PASS tests/unit/test_x.py",
        "passed=12 failed=0",
        "pwd: /home/bob/src",
        "PWD=/home/bob",
        "OLDPWD=/tmp",
        "session: 42 minutes",
        "session notes: talked about budget",
        "cookie consent banner",
        "cookies: 3 eggs, 200 g flour",
        "signature: Bob Miller, CEO",
        "credential helper: osxkeychain",
        "credentials: include",
        "auth: false",
        "auth_method: oauth2",
        "authentication: none",
        "SSL certificate expires 2027-01-01",
        "access_token_lifetime: 3600",
        "token_endpoint: https://id.example/token",
        "password_reset_url: https://x.example/reset",
        "secretName: db-credentials",
        "imagePullSecrets:\n- name: regcred",
        "AWS_PROFILE=prod",
        "AWS_REGION=eu-central-1",
        "SSH_AUTH_SOCK=/tmp/ssh-x/agent.1",
        "GPG_KEY_ID=" + "ABCD1234",
        "privacy: public",
        "private: true",
        "privateKeyPath: /etc/ssl/private/x.key",
        "ssh-keygen -t ed25519 -C bob",
        "openssl rand -base64 32",
        "pass -c work/github",
        "kubectl get secret db -o yaml",
        "vault kv get secret/db",
        "aws secretsmanager get-secret-value --secret-id prod/db",
        "gcloud auth login",
        "npm token create",
        "git config credential.helper store",
        "What is my password manager called?",
        "He has a pass for the museum",
        "code: 200",
        "status code 404",
        "error code: ERR_1234",
        "zip code 10115",
        "verification of the code took 3 days",
        "area code 030",
        "country code is DE",
    ]:
        h("text " + s[:40], s)
    for v in [
        {"max_tokens": 1024},
        {"token_count": 55},
        {"password_required": True},
        {"has_password": False},
        {"passwordLastChanged": "2026-01-02"},
        {"next_page_token": None},
        {"key": "name"},
        {"sortKey": "date"},
        {"author": "bob"},
        {"sha": hx(40)},
        {"etag": f'"{hx(32)}"'},
        {"id": uuid()},
        {"user_id": dg(19)},
        {"tweet_id": dg(19)},
        {"amount": 4111111111111112},
        {"ts": 1732270000.123456},
        {"n": 123456789012345678},
        {"image": "data:image/jpeg;base64,/9j/4AAQSkZJRg" + b64(120)},
        {"type": "image", "data": "iVBORw0KGgoAAAANSUhEUgAA" + b64(300), "mimeType": "image/png"},
        {"type": "audio", "data": "UklGR" + b64(300), "mimeType": "audio/wav"},
        {"cursor": b64(12)},
        {"query": "how do I reset a forgotten password in django"},
        {"path": "/etc/secrets/README.md"},
        {"file": "src/auth/password.py"},
        {"title": "Token economy explained"},
        {"tags": ["security", "password", "token"]},
        {"secret": False},
        {"auth": {"type": "none"}},
        {"private": True, "keys": 3},
        {"keywords": ["api key", "secret"]},
        {"digest": "sha256:" + hx(64)},
        {"checksum": hx(64)},
        {"tree": {"sha": hx(40), "url": f"https://api.github.com/repos/a/b/git/trees/{hx(40)}"}},
        {"node_id": "MDQ6VXNlcjE="},
        {"node_id": "R_kgDOA" + an(5)},
        {"phone": "+49 170 1234567"},
        {"isbn": "9783161484100"},
        {"order": "2026-11-22-0000451"},
        {"color": "#deadbeef"},
        {"version": "2026.11.22.1830"},
        {"hash": "$LATEST"},
        {"run_id": 11963245871},
        {"job": "build-" + lo(8)},
        {"pod": f"web-{lo(10)}-{lo(5)}"},
        {"container": hx(64)},
        {"trace_id": hx(32)},
        {"embedding": [0.123456789012, -0.9876543210987, 0.5555123]},
        {"numbers": [dg(16), "1234567890123456"]},
        {"prompt": "Write a haiku about passwords"},
        {
            "schema": {
                "type": "object",
                "properties": {"password": {"type": "string", "minLength": 8}},
                "required": ["password"],
            }
        },
        {"email": "bob@corp.example"},
        {"name": "Bob Token"},
        {"passport_required": "no"},
        {"pass_rate": 0.98},
        {"passing": "yes"},
        {"compression": "brotli"},
        {"monkey": "banana"},
        {"turkey": "Ankara"},
        {"keynote": "Opening session"},
        {"design_tokens": {"primary": "blue"}},
        {"session_count": 4},
        {"cookie_banner": "on"},
    ]:
        H("json " + json.dumps(v)[:40], v)
    return made.secrets, made.plain
