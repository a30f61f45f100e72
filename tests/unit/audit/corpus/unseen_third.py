"""The third set of secrets and look-alikes that was written without a look at the rules.

Of its 128 secrets 78.9 % were found at first (69.5 % by the rules before the first set), and 2.4 % of its 168
look-alikes were taken for secrets. The rules were mended by it, too: no set tells how they do now but the next.
"""

# ruff: noqa: UP031

from __future__ import annotations

import json

from tests.unit.audit.corpus import Case
from tests.unit.audit.corpus.made import Made


def third_unseen(seed: int) -> tuple[list[Case], list[Case]]:
    """Secrets and harmless values."""
    made = Made(seed)
    S, H, text = made.secret, made.harmless, made.text
    an, hx, up, lo, dg, uuid = made.an, made.hx, made.up, made.lo, made.dg, made.uuid
    b64, b64u, e64, jwt = made.b64, made.b64u, made.e64, made.jwt

    S("gitleaks", {"Description": "AWS", "Match": f'aws_secret = "{(k := an(40))}"', "Secret": k, "File": "a.py"}, k)
    S("trufflehog", {"DetectorName": "Generic", "Raw": (k := an(32)), "Verified": True}, k)
    S("semgrep", text("app.py:12: hardcoded-password\n    12| PASSWORD = 'Kieselweg-9'"), "Kieselweg-9")
    S("git grep", text("src/db.py:14:    passwd='Bachlauf3',"), "Bachlauf3")
    S("git diff env", text("@@ -1,2 +1,2 @@\n-API_TOKEN=old\n+API_TOKEN=" + (k := an(28))), k)
    S("review comment", text("Line 7 hardcodes the token `" + (k := an(32)) + "`, please move it to the vault."), k)
    S("issue", {"title": "Leaked key", "body": "I accidentally pushed my Stripe key rk_live_" + (k := an(24))}, k)
    S("incident", text("Attacker used the leaked credentials deploy:Hangtal#5 from 10.1.2.3"), "Hangtal#5")
    S("pentest", text("[+] 10.0.0.5:445 CORP\\svc_sql:Steinbruch1 (Pwn3d!)"), "Steinbruch1")
    S("hashcat", text(f"{hx(32)}:Talsperre8"), "Talsperre8")
    S("hydra", text("[22][ssh] host: 10.0.0.1   login: root   password: Wasserfall2"), "Wasserfall2")
    S("mimikatz", text("* Username : bob\n     * Domain   : CORP\n     * Password : Gletscher!4"), "Gletscher!4")
    S("mimikatz ntlm", text("* NTLM     : " + (k := hx(32))), k)
    S("sam", text(f"bob:1001:{hx(32)}:{(k := hx(32))}:::"), k)
    S("responder", text("NTLMv2 hash bob::CORP:" + hx(16) + ":" + (k := hx(32)) + ":0101"), k)
    S("notebook", {"cells": [{"source": ["import openai\n", f"openai.api_key = '{(k := an(40))}'\n"]}]}, k)
    S("notebook env", {"cells": [{"source": "%env WANDB_API_KEY=" + (k := hx(40))}]}, k)
    S("colab", text(f"!huggingface-cli login --token hf_{(k := an(34))}"), k)
    S("colab getpass default", text("HF_TOKEN = 'hf_" + (k := an(34)) + '\' #@param {type:"string"}'), k)
    S("pandas sql", text("pd.read_sql(q, 'mysql+pymysql://ana:Hochebene6@db/x')"), "Hochebene6")
    S(
        "snowpark",
        text('Session.builder.configs({"account": "x", "user": "a", "password": "Lichtung_8"})'),
        "Lichtung_8",
    )
    S("spark conf", text('spark.conf.set("fs.azure.account.key.x.dfs.core.windows.net", "' + (k := b64(64)) + '")'), k)
    S(
        "dbt profile",
        text("outputs:\n  dev:\n    type: postgres\n    user: a\n    pass: Heidekraut4\n    port: 5432"),
        "Heidekraut4",
    )
    S("airflow conn", text("airflow connections add x --conn-login a --conn-password Moorland7"), "Moorland7")
    S("airflow uri", text("AIRFLOW_CONN_X='postgres://a:Duenengras@h/d'"), "Duenengras")
    S("dsn kv oracle", text("oracledb.connect(user='a', password='Kiefern-1', dsn='x')"), "Kiefern-1")
    S("metabase", {"details": {"host": "h", "user": "a", "password": "Fichten2"}}, "Fichten2")
    S("superset", {"sqlalchemy_uri": "trino://a:Tannen-zapfen@h:8443/x"}, "Tannen-zapfen")
    S("kafka", text("ssl.truststore.password=Buchen33\nssl.keystore.location=/x"), "Buchen33")
    S("mlflow", text("MLFLOW_TRACKING_PASSWORD=Eichel_5 mlflow ui"), "Eichel_5")
    S("dvc", text("dvc remote modify --local r password Ahorn88"), "Ahorn88")
    S("kaggle", {"username": "a", "key": (k := hx(32))}, k)
    S("elastic", text("curl -u elastic:Birken-rinde https://es:9200"), "Birken-rinde")
    S("elastic setup", text("The generated password for the elastic built-in superuser is : " + (k := an(20))), k)
    S("grafana prov", text("secureJsonData:\n  basicAuthPassword: Weiden9"), "Weiden9")
    S("influx token", text(f"influx config create --token {(k := b64u(64))} -o o"), k)
    S("qdrant", text(f'QdrantClient(url="x", api_key="{(k := an(36))}")'), k)
    S("langchain", text(f'''ChatX(model='m', x_api_key="{(k := an(40))}")'''), k)
    S("mqtt", text("mosquitto_pub -h b -u dev -P Erlen-4 -t x -m 1"), "Erlen-4")
    S(
        "esphome",
        text(
            'wifi:\n  ssid: "Home"\n  password: "Pappel-allee"\napi:\n  encryption:\n    key: "' + (k := b64(32)) + '"'
        ),
        "Pappel-allee",
        k,
    )
    S("arduino", text('const char* password = "Linden1!";'), "Linden1!")
    S("arduino define", text('#define WIFI_PASS "Ulmen-22"'), "Ulmen-22")
    S("tasmota", text("Backlog SSID1 Home; Password1 Zedern3"), "Zedern3")
    S("ha secrets", text("mqtt_password: Zypresse\nlat: 52"), "Zypresse")
    S("rtsp", {"url": "rtsp://admin:Eiben_77@192.168.1.9/stream"}, "Eiben_77")
    S("camera cgi", {"url": "http://192.168.1.9/cgi-bin/x?usr=admin&pwd=Lerche1"}, "Lerche1")
    S("ubnt", text("set system login user a authentication plaintext-password 'Meise-2'"), "Meise-2")
    S("openvpn inline", text("<auth-user-pass>\nbob\nAmsel-33\n</auth-user-pass>"), "Amsel-33")
    S(
        "openvpn static",
        text(
            "-----BEGIN OpenVPN Static key V1-----\n"
            + (k := hx(32))
            + "\n"
            + hx(32)
            + "\n-----END OpenVPN Static key V1-----"
        ),
        k,
    )
    S("wg psk", text("PresharedKey = " + (k := b64(32))), k)
    S("hostapd", text("wpa_psk=" + (k := hx(64))), k)
    S("tailscale up", {"command": f"tailscale up --authkey {(k := ('tskey-auth-k' + an(11) + 'CNTRL-' + an(32)))}"}, k)
    S("snmpv3", text("snmpwalk -v3 -u a -l authPriv -A Drossel44 -X Finken55 h"), "Drossel44", "Finken55")
    S("tacacs", text("tacacs-server key 7 " + (k := hx(16))), k)
    S("junos", text('encrypted-password "$6$abc$' + (k := an(60)) + '"'), k)
    S("bgp", text("neighbor 10.0.0.1 password Spatzen6"), "Spatzen6")
    S("firebase web", text('apiKey: "AIza' + (k := an(35)) + '", authDomain: "x"'), k)
    S("fastlane", text('FASTLANE_PASSWORD="Stare-77" fastlane release'), "Stare-77")
    S("keystore props", text("storePassword=Kraniche8\nkeyAlias=a\nkeyPassword=Stoerche9"), "Kraniche8", "Stoerche9")
    S("xcconfig", text("API_SECRET = " + (k := an(24))), k)
    S("flutter define", {"command": "flutter build --dart-define=API_KEY=" + (k := an(30))}, k)
    S("expo eas", text(f"eas secret:create --name SENTRY_AUTH --value {(k := an(40))}"), k)
    S("unity", text('PlayerSettings.keystorePass = "Reiher-1";'), "Reiher-1")
    S("steam", text("steamcmd +login bot Gans_gut3 +quit"), "Gans_gut3")
    S("discord js", text("client.login('" + (k := ("MTA" + an(21) + "." + an(6) + "." + an(30))) + "')"), k)
    S(
        "slack bolt",
        text("new App({ token: 'xoxb-1-2-" + (k := an(24)) + "', signingSecret: '" + (k2 := hx(32)) + "' })"),
        k,
        k2,
    )
    S("telegraf", text("new Telegraf('" + (k := (dg(10) + ":AA" + an(33))) + "')"), k)
    S("wordpress", text("define( 'AUTH_KEY',         '" + (k := "v9|Xq`2=;;Fk)8^uY2zz&%Wb-+k1tQ") + "' );"), k)
    S("wp app pw", {"command": "curl -u 'admin:" + (k := "abcd EFGH 1234 ijkl") + "' https://x/wp-json"}, k)
    S("magento", text("'crypt' => [ 'key' => '" + (k := hx(32)) + "' ]"), k)
    S("drupal", text("$settings['hash_salt'] = '" + (k := an(50)) + "';"), k)
    S("odoo", text("admin_passwd = Schwan-9"), "Schwan-9")
    S("sap", text("ASHOST=h CLIENT=100 USER=a PASSWD=Dohle.12"), "Dohle.12")
    S(
        "salesforce",
        text('sfdx force:user:password:generate\nSuccessfully set the password "Elster!34" for user a@x.'),
        "Elster!34",
    )
    S("sf token", text("Your new security token: " + (k := an(24))), k)
    S("hubspot form", {"properties": [{"name": "portal_password", "value": "Specht-5"}]}, "Specht-5")
    S(
        "jira field",
        {"fields": {"summary": "VPN", "description": "New VPN account\nUser: ann\nPass: Habicht66"}},
        "Habicht66",
    )
    S("confluence", {"body": "<tr><th>Admin password</th><td>Falken7!</td></tr>"}, "Falken7!")
    S("notion", {"properties": {"Password": {"rich_text": [{"plain_text": "Bussard_8"}]}}}, "Bussard_8")
    S("sheet", {"values": [["User", "Password"], ["ann", "Milane99"]]}, "Milane99")
    S("sheet csv tool", {"csv": "site,login,pass\nx,ann,Sperber-1\n"}, "Sperber-1")
    S("airtable rec", {"fields": {"Name": "Router", "Admin PW": "Uhu+22"}}, "Uhu+22")
    S("calendar", {"description": "Join https://zoom.us/j/123 Passcode: Kauz33"}, "Kauz33")
    S("contact note", {"note": "bank pin 4471, card cvv 882"}, "4471", "882")
    S("gmail", {"snippet": "Your verification code: 771-402"}, "771-402")
    S("gmail2", {"snippet": "Your Amazon code is: 402771"}, "402771")
    S(
        "gmail3",
        {"body": "Click to sign in: https://x.example/auth/callback?token_hash=" + (k := hx(56)) + "&type=magiclink"},
        k,
    )
    S("whatsapp", text("bob: netflix login? ann: ann@x.example / Rabe-77"), "Rabe-77")
    S("hr letter", text("Ihr Startpasswort für das Portal lautet Kolkrabe1."), "Kolkrabe1")
    S("travel", text("Visa 4111 1111 1111 1111 exp 12/27 security code 737"), "737")
    S("bank", text("Online-Banking PIN 77123, TAN 884201"), "77123", "884201")
    S("iban", text("Bitte auf DE89370400440532013000 überweisen"), "DE89370400440532013000")
    S(
        "crypto",
        text("my recovery phrase is: apple river stone cloud tiger lemon planet guitar window silver rocket candle"),
        "river stone cloud",
    )
    S("exchange", {"apiKey": an(64), "secret": (k := an(64))}, k)
    S("eth pk arg", {"privateKey": "0x" + (k := hx(64))}, k)
    S("solana", text("keypair secret: [" + (k := ",".join(dg(2) for _ in range(64))) + "]"), k)
    S("az sp", text('{"appId": "%s", "password": "%s", "tenant": "%s"}' % (uuid(), (k := an(34)), uuid())), k)
    S("az keys", {"keys": [{"keyName": "key1", "value": (k := b64(64))}]}, k)
    S("az webapp", {"publishingPassword": (k := an(60))}, k)
    S("az conn", text("HostName=h.azure-devices.net;DeviceId=d;SharedAccessKey=" + (k := b64(32))), k)
    S("cosmos", text("AccountEndpoint=https://x/;AccountKey=" + (k := b64(64)) + ";"), k)
    S("gcloud print", text("$ gcloud auth print-access-token\nya29." + (k := b64u(90))), k)
    S("aws ecr", text("aws ecr get-login-password | docker login\neyJwYXlsb2FkIjoi" + (k := b64(150))), k[:80])
    S("aws rds token", {"url": f"h:3306/?Action=connect&DBUser=a&X-Amz-Signature={(k := hx(64))}"}, k)
    S("aws cfn out", {"Outputs": [{"OutputKey": "DbPassword", "OutputValue": "Zeisig-44"}]}, "Zeisig-44")
    S("aws lambda env", {"Environment": {"Variables": {"DB_PASS": "Gimpel5"}}}, "Gimpel5")
    S(
        "do db",
        {"connection": {"uri": "postgresql://doadmin:" + (k := ("AVNS_" + an(15))) + "@h:25060/d", "password": k}},
        k,
    )
    S("hetzner", {"server": {"name": "x"}, "root_password": (k := an(20))}, k)
    S("vultr", text("Default password: " + (k := an(16))), k)
    S("k8s sa", text("token:      " + (k := jwt())), k[-60:])
    S("argocd", text("argocd admin initial-password -n argocd\n" + (k := an(16))), k)
    S("argocd login", {"command": "argocd login h --username admin --password Kleiber66"}, "Kleiber66")
    S("consul", {"command": "consul kv put db/password Baumlaeufer7"}, "Baumlaeufer7")
    S("etcd", {"command": "etcdctl put /prod/db_password Zaunkoenig8"}, "Zaunkoenig8")
    S("vault put", {"command": "vault kv put secret/db user=a password=Rotkehl9"}, "Rotkehl9")
    S("nomad", {"command": f"NOMAD_TOKEN={(k := uuid())} nomad status"}, k)
    S("pulumi", {"command": "pulumi config set --secret dbPassword Nachtigall1"}, "Nachtigall1")
    S("tf var", {"command": "terraform apply -var db_password=Sprosser22"}, "Sprosser22")
    S("sops", text("password: ENC[AES256_GCM,data:x]\n# decrypted: password: Pirol-3"), "Pirol-3")
    S(
        "circleci",
        {"command": "circleci context store-secret x y API_TOKEN", "stdin": (k := ("CCIPAT_" + an(22) + "_" + hx(40)))},
        k,
    )
    S("gh api", {"command": "gh api -H 'Authorization: token ghp_" + (k := an(36)) + "' /user"}, k)
    S("glab", {"command": "glab auth login -t glpat-" + (k := an(20))}, k)
    S("npm publish", {"command": "NPM_CONFIG__AUTH=" + (k := e64("a:Wiedehopf")) + " npm publish"}, k)
    S("twine", {"command": "twine upload -u __token__ -p pypi-AgEI" + (k := b64u(100)) + " dist/*"}, k)
    S("mvn", {"command": "mvn deploy -Dpassword=Bluthaenfling4"}, "Bluthaenfling4")
    S("gpg sign", {"command": "mvn -Dgpg.passphrase='Stieglitz und Co' verify"}, "Stieglitz und Co")
    S("cosign", {"command": "COSIGN_PASSWORD=Girlitz5 cosign sign x"}, "Girlitz5")
    S("robot", {"auths": {"quay.io": {"username": "org+bot", "password": (k := up(64))}}}, k)

    def hs(*texts):
        for t in texts:
            H("t " + t[:40], text(t))

    hs(
        "gitleaks: no leaks found",
        "trufflehog found 0 verified secrets",
        "hardcoded-password: 0 findings",
        "src/auth.py:12: missing password check",
        "The CVE allows password bypass",
        "openai.api_key = os.environ['OPENAI_API_KEY']",
        "%env CUDA_VISIBLE_DEVICES=0",
        "from getpass import getpass",
        "password = getpass('Password: ')",
        "df.drop(columns=['password'])",
        "df['token_count'].mean()",
        "tokens per second: 45.2",
        "vocab_size=32000, pad_token_id=0",
        "tokenizer.pad_token = tokenizer.eos_token",
        "bos_token: <s>",
        "AutoTokenizer.from_pretrained('gpt2')",
        "key=lambda x: x[1]",
        "sort by key desc",
        "SELECT key, count(*) FROM t GROUP BY key",
        "primary key (id)",
        "the secret sauce is butter",
        "access denied: token missing",
        "password authentication is disabled",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "pam_unix(sshd:auth): authentication failure",
        "Failed password for invalid user admin from 10.0.0.1 port 2222 ssh2",
        "Accepted publickey for bob from 10.0.0.1 port 50022 ssh2: ED25519 SHA256:" + b64(32)[:43],
        "sudo: 3 incorrect password attempts",
        "wifi: Home (signal 80 %)",
        "ssid: Home",
        "RTSP stream on port 554",
        "mosquitto_sub -t 'home/+/temp' -h b",
        "#define PASS_THROUGH 1",
        "#define KEY_SIZE 256",
        'const char* ssid = "Home";',
        "public key token b77a5c561934e089",
        "PublicKeyToken=b03f5f7f11d50a3a",
        "AssemblyVersion 4.0.0.0",
        "GUID {6B29FC40-CA47-1067-B31D-00DD010662DA}",
        "MAC 3C-22-FB-11-22-33",
        "serial C02XL0GXJGH5",
        "model number A2338",
        "part no. 4719-331-120",
        "IMEI: 35-209900-176148-1",
        "flight LH 400, seat 22A",
        "PNR X7K2PQ",
        "booking reference: 4F7H2K",
        "room 4711",
        "gate code name: Falcon",
        "invoice INV-2026-11-0042",
        "order #114-3941689-8772232",
        "parcel 1Z 999 AA1 01 2345 6784",
        "ref 8a7f-4b21",
        "case 500Kx00001abcDE",
        "lead 00QKx00000aBcDeMAK",
        "account 001Kx00000ZzYyXIAV",
        "customer no. 100023456",
        "meter 1EMH0012345678",
        "VAT ATU12345678",
        "tax id 12/345/67890",
        "passport office opens at 8",
        "passport photo 35x45 mm",
        "pass the salt",
        "boarding pass for LH400",
        "season pass 2026",
        "a pass rate of 97 %",
        "bypass valve 3/4 inch",
        "PIN-compatible with ATmega328P",
        "GPIO pin 17",
        "pinout: 1=VCC 2=GND",
        "key signature: D major",
        "key: C#m",
        "keyframe every 48",
        "hotkey ctrl+k",
        "locker key nr 12",
        "session id is missing",
        "cookie recipe: 200 g flour",
        "token ring network",
        "token gesture",
        "Ethereum token USDC at 0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48",
        "block 21234567 hash 0x" + hx(64),
        "tx fee 0.0021 ETH",
        "commit signed with key 4AEE18F83AFDEB23",
        "gpg: Good signature from bob",
        "apt-key is deprecated",
        "Signed-off-by: Bob <bob@x.example>",
        "Change-Id: I" + hx(40),
        "Reviewed-on: https://go-review.googlesource.com/c/go/+/512345",
        "sha1-" + b64(20),
        'W/"' + hx(8) + '"',
        "bundle-" + hx(20) + ".js",
        "chunk-vendors." + hx(8) + ".css",
        "_next/static/" + an(21) + "/_buildManifest.js",
        "k8s pod api-7d9c6b8f5d-x2x9q",
        "replicaset web-" + lo(10),
        "pvc-" + uuid(),
        "ip-10-0-1-23.ec2.internal",
        "eni-" + hx(17),
        "snap-" + hx(17),
        "rtb-" + hx(17),
        "lambda request " + uuid(),
        "log stream 2026/11/22/[$LATEST]" + hx(32),
        "arn:aws:acm:eu-west-1:123456789012:certificate/" + uuid(),
        "Das Kennwortfeld ist leer.",
        "Passwörter laufen nach 90 Tagen ab.",
        "Bitte Passwort eingeben:",
        "Mot de passe expiré",
        "Introduzca su contraseña",
        "A palavra-passe está errada",
        "Inserire la password",
        "Voer uw wachtwoord in",
        "Podaj hasło",
        "Введите пароль",
        "パスワードを入力してください",
        "비밀번호를 입력하세요",
        "비밀번호가 틀렸습니다",
        "忘记密码了吗",
        "Nhập mật khẩu",
        "Lütfen şifrenizi girin",
    )
    for v in [
        {"values": [["Name", "City"], ["Ann", "Berlin"]]},
        {"values": [["Key", "Value"], ["color", "red"]]},
        {"Secret": False},
        {"findings": [], "secrets_found": 0},
        {"Match": "README.md", "Rule": "todo"},
        {"Raw": "hello world"},
        {"cells": [{"source": ["print('password')\n"]}]},
        {"model": "claude-3-5-sonnet-20241022", "max_tokens": 4096},
        {"key": "PROJ-1", "fields": {"summary": "Reset password page"}},
        {"properties": {"Status": {"select": {"name": "Done"}}}},
        {"OutputKey": "BucketName", "OutputValue": "my-bucket-a1b2c3"},
        {"Outputs": [{"OutputKey": "VpcId", "OutputValue": "vpc-" + hx(17)}]},
        {"name": "LOG_FORMAT", "value": "json-v2"},
        {"element": "Search box", "text": "iphone 15 pro"},
        {"selector": "#email", "text": "a@x.example"},
        {"columns": ["token", "count"], "rows": [["the", 5], ["of", 3]]},
        {"columns": ["key", "value"], "rows": [["theme", "dark1"]]},
        {"pins": [1, 2, 3]},
        {"code": "SUMMER26"},
        {"discount_code": "WELCOME10"},
        {"country_code": "DE"},
        {"currency_code": "EUR"},
        {"zip_code": "10115"},
        {"status_code": 200},
        {"security_group": "sg-1"},
        {"security_level": "high"},
        {"access_level": "read"},
        {"access": "private"},
        {"authority": "x"},
        {"login": "bob"},
        {"login_url": "https://x/login"},
        {"user": "bob", "host": "h"},
        {"account_number_format": "IBAN"},
        {"routing": "round_robin"},
        {"ticket": "SUP-1234"},
        {"ticket_id": 1234567},
        {"signature_required": True},
        {"digest": hx(32)},
        {"nonce": 12},
        {"salt": "NaCl"},
        {"hash": hx(40)},
        {"seed": 42},
        {"seed_phrase_count": 12},
        {"recovery_mode": "auto"},
        {"backup_codes_enabled": True},
        {"verification_code_sent": True},
        {"key_value": "a"},
        {"data": [["Ann", 1], ["Bob", 2]], "columns": ["name", "id"]},
    ]:
        H("j " + json.dumps(v)[:40], v)
    return made.secrets, made.plain
