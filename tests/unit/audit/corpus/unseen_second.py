"""The second set of secrets and look-alikes that was written without a look at the rules.

Of its 392 secrets 75.0 % were found at first (59.9 % by the rules before the first set), and 1.4 % of its 359
look-alikes were taken for secrets. The rules were mended by it, too, as by the third.
"""

# ruff: noqa: B023, E501, E741, RUF001, UP031

from __future__ import annotations

import json
import re

from tests.unit.audit.corpus import Case
from tests.unit.audit.corpus.made import Made


def second_unseen(seed: int) -> tuple[list[Case], list[Case]]:
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
    e64, luhn, iban, group, jwt, pem = made.e64, made.luhn, made.iban, made.group, made.jwt, made.pem

    def sdk(label, template, token, value=None):
        S(label, value if value is not None else text(template.replace("§", token)), token)

    S("pw fill", {"selector": "#password", "value": "Mondschein8!"}, "Mondschein8!")
    S("pw type", {"element": "Password field", "ref": "e12", "text": "Herbst-Laub7"}, "Herbst-Laub7")
    S(
        "pw fields",
        {
            "fields": [
                {"name": "Username", "type": "textbox", "value": "bob"},
                {"name": "Password", "type": "textbox", "value": "Gr1zzly!"},
            ]
        },
        "Gr1zzly!",
    )
    S("pw code", {"code": "await page.fill('#password', 'Tulpe_2231');"}, "Tulpe_2231")
    S("pw getby", {"code": "await page.getByLabel('Password').fill('Kiwi$445');"}, "Kiwi$445")
    S("selenium", {"script": "driver.find_element(By.ID, 'password').send_keys('Otter+91')"}, "Otter+91")
    S("cypress", {"script": "cy.get('input[name=password]').type('Dachs.882')"}, "Dachs.882")
    S("memory", {"entities": [{"name": "NAS", "observations": ["admin password is Fr0schteich"]}]}, "Fr0schteich")
    S("write_file", {"path": "/app/.env.local", "content": f"NEXT_PUBLIC_URL=x\nSTRIPE_SECRET={(k := an(30))}\n"}, k)
    S(
        "email body",
        {"to": "a@x.example", "body": "Hi Ann,\n\nyour initial password: Willkommen77\n\nRegards"},
        "Willkommen77",
    )
    S("email body2", {"body": "User name: ann.b\nInitial password : Start!2026\nPlease change it."}, "Start!2026")
    S("http tool", {"method": "POST", "headers": {"authorization": f"Token {(k := hx(40))}"}, "url": "https://x"}, k)
    S("http tool basic", {"auth": {"username": "bob", "password": "Bl1tz"}, "url": "x"}, "Bl1tz")
    S("http pair", {"auth": ["svc", (k := an(20))]}, k)
    S("headers str", {"headers": f"X-Api-Token: {(k := an(30))}\nAccept: x"}, k)
    S("har", {"request": {"headers": [{"name": "Cookie", "value": f"sid={(k := an(40))}"}]}}, k)
    S("har cookie", {"cookies": [{"name": "connect.sid", "value": (k := ("s%3A" + an(32) + "." + an(43)))}]}, k)
    S("har post", {"postData": {"params": [{"name": "passwd", "value": "Rosmarin5"}]}}, "Rosmarin5")
    S(
        "postman",
        {"auth": {"type": "bearer", "bearer": [{"key": "token", "value": (k := an(40)), "type": "string"}]}},
        k,
    )
    S("graphql vars", {"variables": {"input": {"email": "a@x", "password": "Thymian-3"}}}, "Thymian-3")
    S("graphql inline", {"query": 'mutation { signIn(email: "a@x", password: "Salbei_44") { token } }'}, "Salbei_44")
    S("docker inspect", {"Config": {"Env": ["PATH=/bin", "MYSQL_PASSWORD=Ing-wer9"]}}, "Ing-wer9")
    S("environ nul", text("HOME=/root\x00GITHUB_TOKEN=" + (k := ("abc" + an(30))) + "\x00LANG=C"), k)
    S(
        "actuator",
        {"propertySources": [{"properties": {"spring.datasource.password": {"value": "Kard4mom", "origin": "x"}}}]},
        "Kard4mom",
    )
    S("arm", {"parameters": {"adminPassword": {"value": "Zimt!Stange1"}}}, "Zimt!Stange1")
    S("cfn", {"Parameters": [{"ParameterKey": "DBPassword", "ParameterValue": "Nelken.12"}]}, "Nelken.12")
    S("ecs", {"environment": [{"name": "REDIS_AUTH", "value": (k := an(32))}]}, k)
    S(
        "aws create key",
        {"AccessKey": {"UserName": "bob", "AccessKeyId": "AKIA" + b32(16), "SecretAccessKey": (k := an(40))}},
        k,
    )
    S(
        "aws sts text",
        text(
            '{\n "Credentials": {\n  "AccessKeyId": "ASIA%s",\n  "SecretAccessKey": "%s",\n  "SessionToken": "%s"\n }}'
            % (b32(16), (k := an(40)), (k2 := b64(200)))
        ),
        k,
        k2[:50],
    )
    S("aws configure", {"command": f"aws configure set aws_secret_access_key {(k := an(40))} --profile x"}, k)
    S("secretstring", {"SecretString": json.dumps({"username": "a", "password": "Anis&Stern"})}, "Anis&Stern")
    S("ssm", {"Parameter": {"Name": "/prod/db/password", "Type": "SecureString", "Value": "Majoran_1"}}, "Majoran_1")
    S(
        "vault kv get",
        text("====== Data ======\nKey         Value\n---         -----\npassword    K3rbel-zz\nusername    bob"),
        "K3rbel-zz",
    )
    S(
        "vault token create",
        text(
            f"Key                  Value\n---                  -----\ntoken                {(k := ('hvs.' + b64u(70)))}\ntoken_accessor       {an(24)}"
        ),
        k,
    )
    S("vault json", {"data": {"data": {"password": "Lieb-stoeckl"}, "metadata": {"version": 1}}}, "Lieb-stoeckl")
    S("vault unseal", text(f"Unseal Key 1: {(k := b64(33))}\nInitial Root Token: {(k2 := ('s.' + an(24)))}"), k, k2)
    S("op item", text("Fields:\n  username:    bob\n  password:    Estr4gon-x\n  website: x"), "Estr4gon-x")
    S("bw json", {"login": {"username": "a", "password": "Beifuss77", "totp": (k := b32(16))}}, "Beifuss77", k)
    S("chrome csv", text("name,url,username,password,note\nexample,https://x.example,bob,Wacholder5,\n"), "Wacholder5")
    S(
        "keepass xml",
        text('<String><Key>Password</Key><Value ProtectInMemory="True">Lorb33r</Value></String>'),
        "Lorb33r",
    )
    S(
        "kubectl jsonpath",
        {"command": "kubectl get secret x -o jsonpath='{.data.password}' | base64 -d", "output": "x"}
        | {"stdin_password": "Quendel.8"},
        "Quendel.8",
    )
    S("kubectl secret json", text(json.dumps({"kind": "Secret", "data": {"password": (k := e64("Schnittlauch9"))}})), k)
    S("k8s json obj", {"apiVersion": "v1", "kind": "Secret", "stringData": {"url": (k := ("opaque-" + an(12)))}}, k)
    S("sealed helm", text('auth:\n  rootPassword: "Petersil1e"\n  database: x'), "Petersil1e")
    S("tf plan", text('  + password             = "Bas1likum#"\n  + port = 5432'), "Bas1likum#")
    S("tf plan change", text('  ~ master_password = "Oregano.1" -> "Oregano.2"'), "Oregano.1", "Oregano.2")
    S("tf output", text(f'admin_token = "{(k := an(30))}"'), k)
    S("tf state", text('"attributes": {"id": "x", "result": "abc", "db_password": "Fenchel+3"}'), "Fenchel+3")
    S("ansible", text('changed: [h] => {"changed": true, "msg": {"mysql_root_password": "Kuemmel__1"}}'), "Kuemmel__1")
    S("ansible cmd", {"command": "ansible-playbook s.yml -e 'db_pass=K0riander'"}, "K0riander")
    S("gha log", text(f"##[debug]..env.DEPLOY_TOKEN = '{(k := an(30))}'"), k)
    S("gha yaml", text(f"    env:\n      NPM_AUTH: {(k := uuid())}\n      API_TOKEN: {(k2 := an(30))}"), k2)
    S("set -x", text("+ export PGPASSWORD=M1nze\n+ PGPASSWORD=M1nze\n+ psql"), "M1nze")
    S("history", text("  501  export SLACK_SECRET=Zitr0ne\n  502  ls"), "Zitr0ne")
    S("crontab", text("0 3 * * * MYSQL_PWD=Melisse7 mysqldump shop > /b.sql"), "Melisse7")
    S("systemd", text('[Service]\nEnvironment="DB_PASS=Lavendel-1" "X=y"'), "Lavendel-1")
    S("supervisor", text('environment=A="b",REDIS_PASSWORD="Ysop__3"'), "Ysop__3")
    S("apache", text("SetEnv SMTP_PASSWORD Borretsch8"), "Borretsch8")
    S("nginx", text(f"""proxy_set_header Authorization "Basic {(k := e64("a:Dill-Gurke"))}";"""), k)
    S("haproxy", text("stats auth admin:B4erlauch"), "B4erlauch")
    S("haproxy user", text("userlist u\n  user bob insecure-password Sauer4mpfer"), "Sauer4mpfer")
    S("chap", text('bob * "W4ldmeister" *  # chap-secrets password'), "W4ldmeister")
    S("ipsec", text('10.0.0.1 10.0.0.2 : PSK "Rauke-und-Rucola"'), "Rauke-und-Rucola")
    S("postfix", text("[smtp.x.example]:587 bob@x.example:Portulak1"), "Portulak1")
    S("dovecot", text("bob:{PLAIN}Kresse+22::::::"), "Kresse+22")
    S("rclone", text(f"[s3]\ntype = s3\nsecret_access_key = {(k := an(40))}"), k)
    S("boto", text(f"[Credentials]\naws_secret_access_key={(k := an(40))}"), k)
    S("gradle", text("RELEASE_STORE_PASSWORD=Spinat.1\nRELEASE_KEY_ALIAS=a"), "Spinat.1")
    S(
        "gradle groovy",
        text("signingConfigs { release { storePassword 'Mangold2' keyPassword \"Endivie3\" } }"),
        "Mangold2",
        "Endivie3",
    )
    S("edn", text('{:db {:user "a" :password "R4dicchio"}}'), "R4dicchio")
    S("elixir", text('config :app, App.Repo, username: "a", password: "Chicor33"'), "Chicor33")
    S("lua", text('local api_key = "' + (k := an(24)) + '"'), k)
    S("R", text('Sys.setenv(API_SECRET = "' + (k := an(24)) + '")'), k)
    S("nix", text('services.x.password = "F3ldsalat";'), "F3ldsalat")
    S("swift", text('let apiKey = "' + (k := an(32)) + '"'), k)
    S("kotlin", text('private val clientSecret: String = "' + (k := an(32)) + '"'), k)
    S("rust", text('const DB_PASS: &str = "Artisch0cke";'), "Artisch0cke")
    S("perl dbi", text('DBI->connect("dbi:mysql:x", "bob", "Sp4rgel!")'), "Sp4rgel!")
    S("php mysqli", text('mysqli_connect("localhost", "bob", "Rettich_9", "shop")'), "Rettich_9")
    S("php pdo", text("new PDO('mysql:host=x', 'bob', 'Radies+7')"), "Radies+7")
    S("java dm", text('DriverManager.getConnection(url, "bob", "Kohlr4bi")'), "Kohlr4bi")
    S("python smtp", text('smtp.login("bob@x.example", "Wirsing-4")'), "Wirsing-4")
    S("go dsn", text('sql.Open("mysql", "bob:Bluk0hl@tcp(db:3306)/shop")'), "Bluk0hl")
    S("ruby basic_auth", text("req.basic_auth 'bob', 'Gruenk0hl'"), "Gruenk0hl")
    S("node obj", text("mysql.createConnection({host: 'x', user: 'u', password: `Rosenk0hl`})"), "Rosenk0hl")
    S("c#", text('options.Password = "Pastin4ke";'), "Pastin4ke")
    S("c# builder", text('new SqlConnectionStringBuilder { UserID = "a", Password = "Topinambur-1" }'), "Topinambur-1")
    S("ts env", text('process.env.JWT_SECRET = "Schwarzwurzel";'), "Schwarzwurzel")
    S("py dict assign", text('config["DB_PASSWORD"] = "Kuerb1s"'), "Kuerb1s")
    S("py default", text('os.getenv("API_SECRET", "Zucch1ni-default")'), "Zucch1ni-default")
    S("js default", text("const secret = process.env.SECRET || 'Gurken-Salat1'"), "Gurken-Salat1")
    S("argparse", text('parser.add_argument("--password", default="Auberg1ne")'), "Auberg1ne")
    S("sasl jaas", text('sasl.jaas.config=org.x.PlainLoginModule required username="a" password="T0mate.";'), "T0mate.")
    S("git cred", text("protocol=https\nhost=x\nusername=bob\npassword=Paprika&1"), "Paprika&1")
    S("extraheader", text(f"""git -c http.extraheader="AUTHORIZATION: basic {(k := e64("x:Chili-8"))}" clone x"""), k)
    S("npmrc _password", text(f"//r.x/:_password={(k := e64('Peperoni3'))}"), k)
    S("npmrc _auth", text(f"_auth = {(k := e64('a:Peperoni3'))}"), k)
    S("yarnrc", text(f'npmAuthToken: "{(k := uuid())}"'), k)
    S("composer", {"http-basic": {"repo.x": {"username": "a", "password": "0live"}}}, "0live")
    S("pip", text("index-url = https://ci:Kap3rn@pypi.x.example/simple"), "Kap3rn")
    S("nuget", text('<add key="ClearTextPassword" value="Art1schocke" />'), "Art1schocke")
    S("ldif", text("dn: cn=a\nuserPassword: Brokkol1"), "Brokkol1")
    S("radius", text('bob Cleartext-Password := "Lauch-2"'), "Lauch-2")
    S("mikrotik", text("/user add name=bob group=full password=Zw1ebel"), "Zw1ebel")
    S("fortinet", text('set passwd "Kn0blauch"'), "Kn0blauch")
    S("asterisk", text("[100]\ntype=friend\nsecret=Sch4lotte"), "Sch4lotte")
    S("nickserv", text("/msg NickServ IDENTIFY Ing3wer"), "Ing3wer")
    S("redis config", {"command": "CONFIG SET requirepass Meerrett1ch"}, "Meerrett1ch")
    S("redis acl", {"command": "ACL SETUSER bob on >Wasab1 ~* +@all"}, "Wasab1")
    S("mongo createUser", text('db.createUser({user:"a", pwd:"S3nf", roles:[]})'), "S3nf")
    S("mongo changePw", text('db.changeUserPassword("a", "M4ggi-x")'), "M4ggi-x")
    S("cassandra", {"q": "CREATE ROLE a WITH PASSWORD = 'Ket-chup' AND LOGIN = true"}, "Ket-chup")
    S("clickhouse", {"q": "CREATE USER a IDENTIFIED WITH plaintext_password BY 'Mayo22'"}, "Mayo22")
    S(
        "redshift copy",
        {
            "q": f"COPY t FROM 's3://b' CREDENTIALS 'aws_access_key_id=AKIA{b32(16)};aws_secret_access_key={(k := an(40))}'"
        },
        k,
    )
    S("dblink", {"q": "SELECT * FROM dblink('host=a user=b password=Essig1', 'select 1') t(x int)"}, "Essig1")
    S("sp_addlogin", {"q": "EXEC sp_addlogin 'bob', 'Oel-und-3'"}, "Oel-und-3")
    S("rmtpassword", {"q": "EXEC sp_addlinkedsrvlogin @rmtuser='a', @rmtpassword='Salz.77'"}, "Salz.77")
    S("grant", {"q": "GRANT ALL ON *.* TO 'a'@'%' IDENTIFIED BY 'Pf3ffer'"}, "Pf3ffer")
    S(
        "mysql log",
        text("2026-11-22 Query ALTER USER 'a'@'%' IDENTIFIED WITH caching_sha2_password BY 'Zuck3r'"),
        "Zuck3r",
    )
    S("pg log", text("LOG:  statement: alter role a with password 'Mehl_405'"), "Mehl_405")
    S(
        "insert multi",
        {"q": "insert into accounts(id,login,passwd) values (1,'a','Hefe-1'),(2,'b','Hefe-2')"},
        "Hefe-1",
        "Hefe-2",
    )
    S("upsert json col", {"q": 'UPDATE cfg SET v = \'{"api_key": "%s"}\'' % (k := an(24))}, k)
    S("result rows", {"columns": ["id", "email", "password"], "rows": [[1, "a@x", "Vanille.9"]]}, "Vanille.9")
    S("result objs", {"rows": [{"email": "a@x", "password_plain": "Z1mtstern"}]}, "Z1mtstern")
    S(
        "psql table",
        text(" id | email | password \n----+-------+----------\n  1 | a@x | Leb-kuchen1\n(1 row)"),
        "Leb-kuchen1",
    )
    S(
        "mysql table",
        text("+----+----------+\n| id | api_token |\n+----+----------+\n| 1 | " + (k := an(32)) + " |\n+----+"),
        k,
    )
    for label, c, pw in [
        ("mysqladmin", "mysqladmin -u root password 'Marz1pan'", "Marz1pan"),
        ("curl form", "curl -d 'user=a&pass=Noug4t' https://x/login", "Noug4t"),
        ("curl json", 'curl -d \'{"username":"a","pwd":"Krok4nt"}\' x', "Krok4nt"),
        ("curl F", "curl -F password=Karam3ll x", "Karam3ll"),
        ("curl url", "curl https://a:Pral1ne@x.example/f", "Pral1ne"),
        ("curl ntlm", "curl --ntlm -u 'CORP\\a:Trueff3l' x", "Trueff3l"),
        ("psql uri", "psql postgresql://a:B0nbon@h/d", "B0nbon"),
        ("ftp uri", "lftp -u a,Lakr1tz ftp.x", "Lakr1tz"),
        ("rsync", "RSYNC_PASSWORD=Gumm1 rsync a b", "Gumm1"),
        ("mount cifs", "mount -t cifs //s/x /m -o username=a,password=Waff3l", "Waff3l"),
        ("net use", "net use Z: \\\\s\\x Kr4pfen /user:CORP\\a", "Kr4pfen"),
        ("xfreerdp", "xfreerdp /v:h /u:a /p:Donut.7", "Donut.7"),
        ("rdesktop", "rdesktop -u a -p Muff1n h", "Muff1n"),
        ("winrm", "evil-winrm -i h -u a -p 'C00kie!'", "C00kie!"),
        ("plink", "plink -ssh a@h -pw Brown1e", "Brown1e"),
        ("sshpass e", "SSHPASS=Torte-3 sshpass -e ssh h", "Torte-3"),
        ("expect", "expect -c 'spawn ssh h; expect password:; send \"Kuch3n\\r\"'", "Kuch3n"),
        ("openssl req", "openssl pkcs12 -export -in a -passout pass:Str3usel", "Str3usel"),
        ("gpg", "gpg --passphrase=Sahne-1 -d x.gpg", "Sahne-1"),
        ("7z", "7z x a.7z -pQu4rk", "Quark"[:0] or "Qu4rk"),
        ("unzip", "unzip -P Jogh7rt a.zip", "Jogh7rt"),
        ("cryptsetup", "echo -n 'Butt3rmilch' | cryptsetup luksOpen /dev/x y -", "Butt3rmilch"),
        ("passwd", "echo 'Mol-ke1' | passwd --stdin bob", "Mol-ke1"),
        ("useradd", "useradd -m bob -p $(openssl passwd -1 Kef1r)", "Kef1r"),
        ("docker login stdin", "docker login -u a -p dckr_pat_" + (k := b64u(20)) + " x", k),
        ("helm repo", "helm repo add x https://x --username a --password Parm3san", "Parm3san"),
        (
            "kubectl create docker",
            "kubectl create secret docker-registry r --docker-username=a --docker-password=Gou-da1",
            "Gou-da1",
        ),
        ("kubectl token", "kubectl --token=" + (k2 := jwt()) + " get po", k2[-50:]),
        ("oc login", "oc login https://x -u a -p Emm3ntaler", "Emm3ntaler"),
        ("gcloud sql", "gcloud sql users set-password a --instance=i --password=Br1e", "Br1e"),
        ("az sql", "az sql server create -n s -u a -p C4membert!", "C4membert!"),
        ("aws rds", "aws rds create-db-instance --master-username a --master-user-password Fet4-x9", "Fet4-x9"),
        ("heroku config", "heroku config:set SECRET_KEY=M0zzarella", "M0zzarella"),
        ("fly secrets", "fly secrets set DB_PASS=Ric0tta", "Ric0tta"),
        ("vercel env", "echo 'Hallo-umi1' | vercel env add API_SECRET production", "Hallo-umi1"),
        ("wrangler", "wrangler secret put TOKEN <<< " + (k3 := an(30)), k3),
        ("gh secret", "gh secret set NPM_TOKEN -b" + (k4 := ("abc" + an(30))), k4),
        ("dotnet secrets", "dotnet user-secrets set Db:Password Grana-1", "Grana-1"),
        ("snowsql", "SNOWSQL_PWD=Pec0rino snowsql -a x", "Pec0rino"),
        ("mongodump", "mongodump --uri mongodb://a:Manch3go@h/d", "Manch3go"),
        ("mc alias", "mc alias set m http://h minioadmin M1nio!pw", "M1nio!pw"),
        ("influx", "influx -username a -password Cheddar.4", "Cheddar.4"),
        ("rabbit", "rabbitmqctl add_user a Raclett3", "Raclett3"),
        ("ldapmodify", "ldapmodify -D cn=a -w Fond-ue2 -f x", "Fond-ue2"),
        ("smbmap", "smbmap -u a -p Tils1ter -H h", "Tils1ter"),
        ("ipmi", "ipmitool -I lanplus -H h -U a -P B3rgkaese sol", "B3rgkaese"),
        ("wifi nmcli", "nmcli dev wifi connect Home password Limburg3r", "Limburg3r"),
        ("netsh", "netsh wlan set key=Harz3r", "Harz3r"),
        (
            "runas ps",
            "New-Object PSCredential('a', (ConvertTo-SecureString 'H4rtkaese' -AsPlainText -Force))",
            "H4rtkaese",
        ),
        ("reg add", "reg add HKLM\\W /v DefaultPassword /t REG_SZ /d Weichk4ese", "Weichk4ese"),
        ("schtasks", "schtasks /create /tn t /ru CORP\\a /rp Frischk4ese", "Frischk4ese"),
        ("bcp", "bcp db.t out f -S s -U a -P Schmelz-1", "Schmelz-1"),
        ("keytool", "keytool -genkey -storepass Sch1mmel -keypass R0tschmier", "Sch1mmel"),
        ("java -D", "java -Djavax.net.ssl.keyStorePassword=Kaese-Rand1 -jar a", "Kaese-Rand1"),
        ("htpasswd", "htpasswd -nb a Rahm-9", "Rahm-9"),
        ("borg", "BORG_PASSPHRASE='Schaf und Ziege' borg list", "Schaf und Ziege"),
        ("http env", "http POST x password=Kuh-Milch1", "Kuh-Milch1"),
        ("grpcurl", "grpcurl -H 'authorization: Bearer " + (k5 := an(40)) + "' h x", k5),
        ("websocat", "websocat -H='X-Auth: " + (k6 := an(32)) + "' ws://h", k6),
    ]:
        S("cmd " + label, {"command": c}, pw)
    for label, t in [
        ("twitch", "oauth:" + lo(30)),
        ("llamacloud", "llx-" + an(48)),
        ("jina", "jina_" + hx(32) + an(28)),
        ("e2b", "e2b_" + hx(40)),
        ("browserbase", "bb_live_" + b64u(20)),
        ("apify", "apify_api_" + an(36)),
        ("cursor", "key_" + hx(64)),
        ("shippo", "shippo_live_" + hx(40)),
        ("woocommerce", "cs_" + hx(40)),
        ("onesignal", "os_v2_app_" + lo(100)),
        ("telnyx", "KEY0" + hx(29).upper() + "_" + an(22)),
        ("akamai", "akab-" + lo(16) + "-" + lo(16)),
        ("scaleway env", "SCW_SECRET_KEY=" + uuid()),
        ("upstash", "UPSTASH_REDIS_REST_TOKEN=" + b64(40)),
        ("railway env", "RAILWAY_TOKEN=" + uuid()),
        ("deepgram hdr", "Authorization: Token " + hx(40)),
        ("assemblyai hdr", "authorization: " + hx(32)),
        ("replicate hdr", "Authorization: Bearer r8_" + an(37)),
        ("stripe conn", "Stripe-Signature: t=1732270000,v1=" + hx(64)),
        ("openai admin", "sk-admin-" + an(48)),
        (
            "gcp sa",
            json.dumps({"type": "service_account", "private_key_id": hx(40), "private_key": pem("PRIVATE KEY", 900)}),
        ),
        ("azure openai hdr", "api-key: " + hx(32)),
        ("azure sub key", "Ocp-Apim-Subscription-Key: " + hx(32)),
        ("cf access", "CF-Access-Client-Secret: " + hx(64)),
        ("rapidapi", "X-RapidAPI-Key: " + hx(20) + "msh" + hx(15)),
        ("trello url", "https://api.trello.com/1/me?key=" + hx(32) + "&token=ATTA" + hx(64)),
        ("todoist", "Todoist API token: " + hx(40)),
        ("clickup", "pk_" + dg(8) + "_" + up(32)),
        ("ifttt", "https://maker.ifttt.com/trigger/x/with/key/" + an(22)),
        ("gchat", f"https://chat.googleapis.com/v1/spaces/AAAA/messages?key=AIza{an(35)}&token={an(40)}"),
        ("zapier hook", f"https://hooks.zapier.com/hooks/catch/{dg(7)}/{lo(7)}/"),
        ("mattermost", f"https://mm.x.example/hooks/{lo(26)}"),
        ("azure func", f"https://f.azurewebsites.net/api/x?code={an(54)}=="),
        ("gcs signed", f"https://storage.googleapis.com/b/o?X-Goog-Algorithm=x&X-Goog-Signature={hx(128)}"),
        ("cloudfront", f"https://d1.cloudfront.net/x?Expires=1&Signature={an(60)}~{an(30)}__&Key-Pair-Id=K1"),
        ("twilio curl", f"curl -u AC{hx(32)}:{hx(32)} https://api.twilio.com"),
        ("firebase", f'"current_key": "AIza{an(35)}"'),
        ("fcm", f"Authorization: key=AAAA{an(7)}:APA91b{an(130)}"),
        ("sentry dsn old", f"https://{hx(32)}:{hx(32)}@sentry.io/12"),
        ("binance", f"BINANCE_API_SECRET: {an(64)}"),
        ("kraken", f'"privateKey":"{b64(64)}"'),
        (
            "coinbase",
            f'''{{"name":"organizations/{uuid()}/apiKeys/{uuid()}","privateKey":"{pem("EC PRIVATE KEY", 118, chr(92) + "n")}"}}''',
        ),
        ("eth keystore pw", 'web3.eth.personal.unlockAccount(a, "Sch0kolade!", 600)'),
        ("github app", f"Iv1.{hx(16)}:{hx(40)} is client id:client secret"),
        ("expo", f"EXPO_TOKEN={an(40)}"),
        ("pusher", f'app_secret: "{hx(20)}"'),
        ("ably", f"ABLY_KEY={an(6)}.{an(6)}:{an(43)}"),
        ("livekit", f"LIVEKIT_API_SECRET={an(43)}"),
        ("mailjet", f"MJ_APIKEY_PRIVATE={hx(32)}"),
        ("zoom", f"https://us02web.zoom.us/j/{dg(11)}?pwd={an(32)}"),
        ("webex", f"Bearer {b64u(48)}_P0A1_{uuid()}"),
        ("supabase anon hdr", f"apikey: {jwt()}"),
        ("mcp url", f"https://mcp.x.example/sse?apiKey={an(32)}"),
        ("smithery", f"https://server.smithery.ai/x/mcp?api_key={uuid()}&profile=a"),
        (
            "mcp json",
            json.dumps({"mcpServers": {"x": {"command": "npx", "args": ["-y", "srv", "--api-key", (kx := an(32))]}}}),
        ),
    ]:
        body = (
            max(re.findall("[A-Za-z0-9_~-]{4,}", t), key=len)
            if "PRIVATE KEY" not in t
            else t[t.index("KEY-----") + 20 :][40:90]
        )
        special = {
            "eth keystore pw": lambda: "Sch0kolade!",
            "zapier hook": lambda: t.split("/")[-2],
            "github app": lambda: t.split(":")[1][:40],
            "smithery": lambda: t.split("api_key=")[1][:36],
            "gchat": lambda: t.split("token=")[-1],
            "ifttt": lambda: t.split("/")[-1],
            "ably": lambda: t.split(":")[-1],
            "fcm": lambda: t[-60:],
            "mcp json": lambda: kx,
            "sentry dsn old": lambda: t.split(":")[2][:32],
            "zoom": lambda: t.split("pwd=")[1],
            "twilio curl": lambda: t.split(":")[1][:32],
            "twitch": lambda: t[6:],
        }
        body = special.get(label, lambda: body)()
        S("vend2 " + label, text(t), body)
    for label, s, pw in [
        ("chat", "hey, wifi pw is Nudel-holz4 btw", "Nudel-holz4"),
        ("chat2", "use admin/Quirl!22 for the router", "Quirl!22"),
        ("chat3", "pls login w/ bob@x.example and Sieb%tuch1 (its my password)", "Sieb%tuch1"),
        ("mail", "Login: ann@x.example\nPasswort: Kochtopf#3", "Kochtopf#3"),
        ("mail2", "Benutzername: ann\r\nKennwort:     Pfann3\r\n", "Pfann3"),
        ("mail3", "Your one-time password (OTP) is 771204", "771204"),
        ("sms", "G-482911 is your Google verification code.", "482911"),
        ("sms2", "Use code 903311 to log in. Never share this code.", "903311"),
        ("sms3", "Ihr Bestätigungscode lautet: 554120", "554120"),
        ("sms4", "Votre code de vérification est 662018", "662018"),
        ("zoom", "Meeting ID: 812 3344 5566\nPasscode: 7Hk2Lp", "7Hk2Lp"),
        ("zoom2", "Passcode: 448812", "448812"),
        ("door", "The door code is 4471#", "4471#"),
        ("alarm", "alarm PIN 9921", "9921"),
        ("card", "Visa 4539 1488 0343 6467, 09/27, CVC 912", "912"),
        ("sim", "PUK: 48219930", "48219930"),
        ("wifi qr", "WIFI:T:WPA;S:home;P:Schneebes3n;;", "Schneebes3n"),
        ("answer", "Security question: first pet? Answer: Mausi-1", "Mausi-1"),
        ("note", "root pw = Teigr0lle", "Teigr0lle"),
        ("note2", "pwd - Kell3nlicht", "Kell3nlicht"),
        ("note3", "u: admin p: Sch0epfer", "Sch0epfer"),
        ("note4", "user=admin / password=Reib-eisen", "Reib-eisen"),
        ("quoted", "He told me that the password was “Messer Gabel 7”.", "Messer Gabel 7"),
        ("md", "- **Password**: `L0effel!`", "L0effel!"),
        ("md2", "| Password | `G4belX!` |", "G4belX!"),
        ("md3", "Password\n: Tell3r.4", "Tell3r.4"),
        ("html", "<td>Password</td><td>T4sse-n</td>", "T4sse-n"),
        ("html2", '<input type="password" name="pw" value="B3cher!">', "B3cher!"),
        ("dl", "<dt>API secret</dt><dd>" + (k := an(30)) + "</dd>", k),
        ("changed", "Password changed from Gl4s-alt to Gl4s-neu", "Gl4s-neu"),
        ("hint", "it's the usual password, Kann3-99", "Kann3-99"),
        ("fr", "Identifiant : ann\nMot de passe : Casser0le", "Casser0le"),
        ("fr2", "ton mot de passe temporaire est : P0ele!x", "P0ele!x"),
        ("es", "Usuario: ana\nContraseña: Olla.88", "Olla.88"),
        ("es2", "tu clave temporal es Sarten-7", "Sarten-7"),
        ("pt", "Senha provisória: Panela#5", "Panela#5"),
        ("it", "Nome utente: ann, password: Pent0la", "Pent0la"),
        ("nl", "Wachtwoord: Koekenp4n", "Koekenp4n"),
        ("da", "Adgangskoden er Gryde_12", "Gryde_12"),
        ("no", "passordet er Kjele-77", "Kjele-77"),
        ("fi", "Salasana on Kattila!3", "Kattila!3"),
        ("hu", "A jelszó: Faz3k-x", "Faz3k-x"),
        ("ro", "parola este Oala.9x", "Oala.9x"),
        ("el", "κωδικός: Katsarola7", "Katsarola7"),
        ("he", "הסיסמה היא Sir-44x", "Sir-44x"),
        ("hi", "पासवर्ड: Kadhai@1", "Kadhai@1"),
        ("vi", "Mật khẩu: Noi-com1", "Noi-com1"),
        ("th", "รหัสผ่าน: Mor-99x", "Mor-99x"),
        ("id", "kata sandi: Panci#12", "Panci#12"),
        ("zh-tw", "密碼：Guo-7788", "Guo-7788"),
        ("zh3", "登录密码为 Wan@2026", "Wan@2026"),
        ("ja2", "初期パスワード：Nabe-123", "Nabe-123"),
        ("ko2", "비밀번호는 Naembi!1 입니다", "Naembi!1"),
        ("ru3", "Логин: ann Пароль: Kastrulya5", "Kastrulya5"),
        ("bg", "Парола: Tenjera_4", "Tenjera_4"),
        ("de4", "Dein neues Passwort ist: Suppenkelle", "Suppenkelle"),
        ("de5", "PIN für die Karte: 8821", "8821"),
        ("de6", "Das WLAN-Passwort: Zuckerd0se", "Zuckerd0se"),
    ]:
        S("say " + label, text(s), pw)
    k = an(40)
    S("log bearer", text(f"DEBUG urllib3 send: b'GET / HTTP/1.1\\r\\nAuthorization: Bearer {k}\\r\\n'"), k)
    k = an(40)
    S("burp cookie", text(f"Cookie: _ga=GA1.2.3; laravel_session={k}"), k)
    k = b64u(60)
    S("xsrf", text(f"x-xsrf-token: {k}"), k)
    S("traceback locals", text("    password = 'Schwamm-1'\n    user = 'bob'\n"), "Schwamm-1")
    S("py repr dataclass", text("Config(dsn='x', api_secret='B3sen', retries=3)"), "B3sen")
    S("ruby inspect", text('#<Account id: 1, password_plain: "W1scher">'), "W1scher")
    S("java toString", text("User[name=bob, passwd=Eim3r, id=4]"), "Eim3r")
    S("rust debug", text('Creds { user: "bob", pass: "Sch4ufel" }'), "Sch4ufel")
    S("query log", text('"GET /login?user=a&password=H4cke HTTP/1.1" 200'), "H4cke")
    S("referer", text(f"Referer: https://x.example/reset?token={(k := hx(32))}"), k)
    S(
        "smtp dialog",
        text("AUTH LOGIN\n334 VXNlcm5hbWU6\nYm9i\n334 UGFzc3dvcmQ6\n" + (k := e64("Sp4ten-x")) + "\n235 ok"),
        k,
    )
    S("telnet", text("login: root\nPassword: H4rke\nLast login"), "H4rke")
    S("strace", text('write(3, "user bob pass R3chen\\n", 21)'), "R3chen")
    S("b64 kv", {"data": (k := e64("username=bob&password=G1esskanne"))}, k)
    S(
        "b64 pem cert+key",
        {"kubeconfig": (k := e64("users:\n- name: a\n  user:\n    token: " + an(40) + "\n"))},
        k[60:100],
    )
    S("json in json", {"event": json.dumps({"detail": json.dumps({"credentials": {"secretKey": (k := an(30))}})})}, k)
    S("yaml in json", {"manifest": "spec:\n  env:\n    - name: API_SECRET\n      value: Schlauch-3\n"}, "Schlauch-3")
    S("url in json", {"next": "https%3A%2F%2Fx.example%2Fcb%3Faccess_token%3D" + (k := an(32))}, k)
    S("xml esc", text("&lt;apiKey&gt;" + (k := an(24)) + "&lt;/apiKey&gt;"), k)
    k = pem("RSA PRIVATE KEY", 300)
    S("pem in yaml list", text("keys:\n  - |\n    " + k.replace("\n", "\n    ")), k[100:150])
    k = pem("DSA PRIVATE KEY", 200)
    S("pem quoted", text('"' + k.replace("\n", '" +\n"') + '"'), k[60:110])
    k = pem("PRIVATE KEY", 200)
    S("pem diff", text("+" + k.replace("\n", "\n+")), k[100:150])
    k = pem("PRIVATE KEY", 200)
    S("pem log", text("\n".join("2026 INFO " + l for l in k.split("\n"))), k[100:140])
    k = pem("PRIVATE KEY", 200).replace("\n", "")
    S("pem no newline", text(k), k[60:120])
    S("p12", {"pfx_base64": (k := ("MII" + b64(300)))}, k[40:90])
    S("ppk key", text("ssh_private_key: " + (k := b64(100))), k[10:60])
    S("jwks oct", {"keys": [{"kty": "oct", "kid": "1", "k": (k := b64u(32))}]}, k)
    S("jwk rsa str", text(json.dumps({"kty": "RSA", "n": b64u(60), "e": "AQAB", "d": (k := b64u(60))})), k)
    S("jwt query", {"url": "https://x.example/?jwt=" + (k := jwt())}, k[-50:])
    S("jwt cookie", text("set-cookie: auth=" + (k := jwt()) + "; HttpOnly"), k[-50:])
    S("jwt split log", text("token:\n" + (k := jwt())), k[-50:])
    S("id_token hint", {"url": "https://x/logout?id_token_hint=" + (k := jwt())}, k[-50:])
    for cc, b in [("AT", dg(16)), ("CH", dg(17)), ("ES", dg(20)), ("PL", dg(24)), ("BE", dg(12)), ("IT", "X" + dg(22))]:
        S("iban2 " + cc, text("Konto: " + (k := group(iban(cc, b), 4)) + ", BIC X"), k)
    for pre, n in [("4", 16), ("52", 16), ("34", 15), ("3530", 16), ("62", 16)]:
        S("card2 " + pre, text("paid with " + (k := luhn(pre, n)) + " today"), k)
    S("card json", {"card": {"number": (k := luhn("4", 16)), "cvc": "123", "exp": "12/29"}}, k)
    S("sort code", text("acct no 12345678 sort code 20-00-00, security code 7719"), "7719")
    S("ssn2", {"ssn": "412-55-9182"}, "412-55-9182")
    for key, v in [
        ("dbPassword", "Harke7"),
        ("Passwort", "Zaun-3"),
        ("login_pw", "Tor!9"),
        ("smtpPass", "Weg_11"),
        ("apiSecretKey", an(20)),
        ("x-functions-key", an(40)),
        ("connectionString", "Server=a;Uid=b;Pwd=Beet+4;"),
        ("bot_token", an(30)),
        ("webhookSecret", "Kompost5"),
        ("licenseKey", "AB12C-DE34F-GH56I-JK78L"),
        ("recovery_key", "1a2b-3c4d-5e6f-7a8b"),
        ("unlock_code", "558812"),
        ("passcode", "119922"),
        ("twoFactorCode", "661288"),
        ("refreshToken", an(30)),
        ("csrf", an(32)),
        ("id_token", jwt()),
        ("SECRET_KEY_BASE", hx(64)),
        ("vapidPrivateKey", b64u(32)),
        ("sshKey", b64(90)),
        ("keystorePassword", "Blumen!1"),
        ("ftp_password", "Topf.33"),
        ("sharedSecret", "Erde44"),
        ("salt_master_secret", "Sand-5"),
        ("authkey", an(24)),
        ("accesskeysecret", an(30)),
        ("pgpassword", "Kies7"),
        ("mfa_code", "771199"),
        ("MotDePasse", "Jardin8"),
        ("パスワード", "Niwa-55"),
    ]:
        S("key2 " + key, {"cfg": {key: v}}, v if "Pwd=" not in v else "Beet+4")
    S("arg list", {"args": ["--host", "h", "-p", "22", "--pass", "Laube.6"]}, "Laube.6")
    S("arg list2", {"argv": ["mysql", "-u", "root", "-pGewaechs1"]}, "Gewaechs1")
    S("tuple headers", {"headers": [["authorization", "Bearer " + (k := an(30))]]}, k)
    S("multi same", {"q": "password=Hecke-1&password_confirmation=Hecke-1"}, "Hecke-1")
    S("flat env", {"env": "A=1;DB_PASSWORD=Rasen_2;B=3"}, "Rasen_2")
    S("toml inline", text('db = { user = "a", password = "Strauch9" }'), "Strauch9")
    S("ini spaces", text("password   =   Moos-12"), "Moos-12")
    S("yaml flow", text("{user: a, password: Farn.34}"), "Farn.34")
    S("yaml anchors", text("password: &pw Efeu_56"), "Efeu_56")
    S("yaml quotes", text("api_secret: 'it''s-Klee7'"), "s-Klee7")
    S("props colon", text("db.password:Distel8"), "Distel8")
    S("csv semicolon", text("user;kennwort;rolle\nann;Nessel-9;admin"), "Nessel-9")
    S("tsv", text("user\tpassword\nann\tQuecke_0"), "Quecke_0")
    S("xml attr", text('<datasource user="a" password="Loewen1" />'), "Loewen1")
    S("plist", text("<key>ApiSecret</key>\n<string>" + (k := an(20)) + "</string>"), k)
    S("hadoop", text("<property><name>fs.s3a.secret.key</name><value>" + (k := an(40)) + "</value></property>"), k)
    S("soap", text("<ns:password>Zahn2</ns:password>"), "Zahn2")
    S("tomcat", text('<user username="a" password="Loewe-z" roles="x"/>'), "Loewe-z")

    def hs(*texts):
        for t in texts:
            H("t " + t[:40], text(t))

    hs(
        "go.sum: golang.org/x/net v0.30.0 h1:" + b64(32),
        'Cargo.lock checksum = "' + hx(64) + '"',
        "  resolution: {integrity: sha512-" + b64(64) + "}",
        'poetry: {file = "x.whl", hash = "sha256:' + hx(64) + '"}',
        "Gemfile.lock\n  rails (7.1.2)",
        f"docker.io/library/nginx@sha256:{hx(64)}",
        f"CONTAINER ID {hx(12)} nginx",
        f"Deleted: sha256:{hx(64)}",
        f"commit {hx(40)} (HEAD -> main, tag: v1.2.3)",
        f"Fast-forward {hx(7)}..{hx(7)}",
        f"git submodule {hx(40)} libs/x (v1.0)",
        f'Last-Modified: x\nETag: "{hx(16)}:0"',
        f"x-amz-request-id: {up(16)}",
        f"x-amz-id-2: {b64(56)}",
        f"cf-ray: {hx(16)}-FRA",
        f"x-request-id: {uuid()}",
        f"X-GitHub-Delivery: {uuid()}",
        f"x-trace: {hx(32)}",
        f"span_id={hx(16)} trace_id={hx(32)}",
        f"job {uuid()} finished in 3.2 s",
        f"build #4711 of {hx(8)}",
        f"Object 64{hx(22)} not found",
        f"_id: ObjectId('{hx(24)}')",
        f"cid bafybei{lo(52)}",
        f"magnet:?xt=urn:btih:{hx(40)}",
        f"tx 0x{hx(64)} confirmed",
        f"address 0x{hx(40)}",
        "bitcoin:1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
        "data:image/svg+xml;base64," + e64('<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'),
        f"data:font/woff2;base64,d09GMgABAAA{b64(90)}",
        f"src='cid:{hx(8)}@x'",
        f"https://avatars.githubusercontent.com/u/{dg(8)}?v=4",
        f"https://i.imgur.com/{an(7)}.png",
        f"https://s3.eu-west-1.amazonaws.com/b/{hx(2)}/{hx(62)}.jpg",
        f"https://www.youtube.com/watch?v={b64u(8)}&t=42s",
        f"https://maps.google.com/?cid={dg(19)}",
        f"https://stackoverflow.com/questions/{dg(8)}/how-to-reset-a-password",
        "https://x.atlassian.net/browse/SEC-1021",
        f"https://x.slack.com/archives/C{up(8)}/p{dg(16)}",
        "https://linear.app/x/issue/ENG-123/rotate-api-keys",
        f"https://app.asana.com/0/{dg(16)}/{dg(16)}",
        f"https://trello.com/c/{an(8)}/12-card",
        f"https://docs.google.com/spreadsheets/d/1{b64u(32)}/edit#gid=0",
        f"https://1drv.ms/w/s!{an(22)}",
        "https://meet.google.com/abc-defg-hij",
        f"https://airtable.com/app{an(14)}/tbl{an(14)}",
        f"https://vercel.com/x/y/{an(28)}",
        "https://console.aws.amazon.com/secretsmanager/secret?name=prod%2Fdb",
        f"https://login.example/oauth2/authorize?client_id={uuid()}&response_type=code&scope=openid",
    )
    hs(
        "org-" + an(24),
        "proj_" + an(24),
        "asst_" + an(24),
        "thread_" + an(24),
        "run_" + an(24),
        "file-" + an(24),
        "chatcmpl-" + an(29),
        "msg_01" + an(22),
        "toolu_01" + an(22),
        "req_" + an(24),
        "call_" + an(24),
        "evt_1" + an(23),
        "sub_1" + an(23),
        "in_1" + an(23),
        "acct_1" + an(15),
        "pm_1" + an(23),
        "prod_" + an(14),
        "user_2" + an(26),
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-a1b2c3",
        "sg-" + hx(17),
        "ami-" + hx(17),
        "projects/123/locations/eu/keyRings/r/cryptoKeys/k",
        "/subscriptions/" + uuid() + "/resourceGroups/rg",
        "tenant " + uuid(),
        "urn:uuid:" + uuid(),
        "urn:isbn:9780306406157",
    )
    hs(
        "phone 030-901820",
        "Tel.: +43 1 58858 0",
        "fax (0221) 4710-0",
        "+1-800-555-0199 ext. 12",
        "ISBN 978-0-13-468599-1",
        "ISSN 2049-3630",
        "EAN 4012345678901",
        "Rechnung Nr. 2026/11/004711",
        "PO-4500123456",
        "Lieferschein 80012345678",
        "DHL 00340434161094021501",
        "UPS 1Z999AA10123456784",
        "Steuernummer 21/815/08150",
        "VAT DE123456789",
        "IMO 9074729",
        "VIN WVWZZZ1JZXW000001",
        "lat 52.5163 lon 13.3777",
        "1.234.567,89 EUR",
        "2026-11-22T18:24:00.123456+01:00",
        "epoch 1795371840",
        "00:1B:44:11:3A:B7",
        "fe80::1ff:fe23:4567:890a",
        "10.0.0.0/8 via 192.168.178.1",
        "CVE-2024-3094",
        "RFC 6749 section 4.1.2",
        "v2.45.1-rc.3+sha.5114f85",
        "Python 3.12.7 (main, Oct  1 2024)",
        "node-v22.11.0-linux-x64.tar.xz",
        "CUDA 12.4.1 cudnn9",
        "Ubuntu 24.04.1 LTS x86_64",
        "gpt-4.1-mini-2025-04-14",
        "claude-opus-4-20250514",
        "llama-3.3-70b-instruct-q4_K_M.gguf",
    )
    hs(
        "Where do I change my password?",
        "Passwords are hashed with bcrypt, cost 12.",
        "Never write a password into a log.",
        "The password field accepts 64 characters.",
        "password strength: weak",
        "Password123 is a bad password"[12:],
        "A token is about four characters.",
        "The API key page is under Settings > Developer.",
        "Rotate your keys after 90 days",
        "Your API key has been revoked.",
        "The key to success is practice",
        "key: F5",
        "Key takeaways: test more",
        "key,value\na,b",
        "| Key | Value |\n|---|---|\n| color | blue |",
        "name,type,description\npassword,string,The user's password",
        "| Field | Type |\n|---|---|\n| password | string |",
        "| Option | Default | Meaning |\n|---|---|---|\n| token_ttl | 3600 | seconds |",
        "| Token | Count |\n|---|---|\n| the | 120 |",
        "user,token_count\nann,1200",
        "password_updated_at: 2026-01-01",
        "password_min_length = 12",
        "PASSWORD_RESET_TIMEOUT=3600",
        "TOKEN_EXPIRY=15m",
        "SECRET_NAME=prod/db",
        "SECRET_ARN=arn:aws:secretsmanager:x",
        "API_KEY_HEADER=X-Api-Key",
        "KEY_PREFIX=app:",
        "KEYSPACE=prod",
        "SESSION_TIMEOUT=30m",
        "SESSION_DRIVER=redis",
        "COOKIE_DOMAIN=.example.com",
        "AUTH_PROVIDER=google",
        "AUTH_URL=https://login.example",
        "CREDENTIALS_PATH=/etc/x.json",
        "GOOGLE_APPLICATION_CREDENTIALS=/etc/gcp.json",
        "VAULT_ADDR=https://vault:8200",
        "PASSWORD=$PASSWORD",
        "password: ${{ secrets.DB_PASSWORD }}",
        "token: ${{ github.token }}",
        "password: !Ref DbPassword",
        "password: !Sub '{{resolve:secretsmanager:x}}'",
        "password = data.aws_ssm_parameter.pw.value",
        "password = random_password.db.result",
        "password: '{{ vault_db_password }}'",
        "password: <%= ENV['PW'] %>",
        "password=%DB_PASSWORD%",
        'password = ""',
        "password: ~",
        "password: none",
        "token=null",
        "apiKey: undefined",
        "api_key: REPLACE_ME",
        "api_key: your-api-key",
        "password: ********",
        "secret: (hidden)",
        "secret: <redacted>",
        "token: xxxxxxxxxxxx",
        "Authorization: Bearer <YOUR_TOKEN>",
        "Authorization: Bearer ${TOKEN}",
        "-H 'Authorization: Bearer $(gcloud auth print-access-token)'",
        'WWW-Authenticate: Bearer realm="x", error="invalid_token"',
        'WWW-Authenticate: Basic realm="Restricted"',
        "Access-Control-Allow-Headers: Authorization, X-Api-Key",
        "Vary: Cookie, Authorization",
        "Set-Cookie policy is strict",
        "kubectl create secret generic db --from-env-file=.env",
        "docker login registry.example",
        "ssh -i ~/.ssh/id_ed25519 bob@host",
        "ssh -p 2222 bob@host",
        "docker run -p 8080:80 -u 1000 nginx",
        "psql -U app -h db -p 5432 shop",
        "mysql -u root -p shop",
        "mysqldump -u root -p --all-databases",
        "mkdir -p src/auth/token",
        "cp -p a b",
        "curl -u bob https://x",
        "curl -sSL https://x | sudo bash",
        "openssl rand -hex 32",
        "gpg --gen-key",
        "git log -p --author=bob",
        "sudo -u postgres psql",
        "tar -xzf token-1.2.tar.gz",
        "pip install python-jose[cryptography]",
        "npm i jsonwebtoken@9.0.2",
        "vault login -method=oidc",
        "aws sso login --profile x",
        "op read op://vault/item/password",
        "pass show mail/work",
        "bw unlock --raw",
    )
    hs(
        "def reset_password(token: str, new_password: str) -> None:",
        "password = request.form['password']",
        "token = jwt.encode(payload, key, algorithm='HS256')",
        "const { password, ...rest } = user;",
        "if (!token) throw new Error('no token');",
        "let token = parser.next_token()?;",
        'secret := os.Getenv("SECRET")',
        'String password = System.getenv("PW");',
        "password: z.string().min(8)",
        "password: { type: String, required: true }",
        "password = Column(String(128))",
        "t.string :password_digest",
        "password_digest VARCHAR(60)",
        "self.token = None",
        "return cls(token=token, secret=secret)",
        "assert response.json()['token']",
        "tokens = tokenizer.encode(text)",
        "for token in doc: print(token.text)",
        "key = lambda row: row['date']",
        "key={item.id}",
        "api_key = settings.api_key",
        "api_key: Optional[str] = None",
        "apiKey: process.env.API_KEY!",
        "auth = HTTPBasicAuth(user, password)",
        "client = Client(account_sid, auth_token)",
        "smtp.login(user, password)",
        "conn = connect(user=user, password=password)",
        "passwords.forEach(p => check(p))",
        "String.valueOf(password)",
        "PasswordEncoder encoder = new BCryptPasswordEncoder();",
        "import { AuthGuard } from './auth.guard'",
        "class TokenBucket:",
        "enum TokenType { Access, Refresh }",
        "SELECT count(*) FROM tokens WHERE expires_at < now()",
        "ALTER TABLE users ADD COLUMN password_hash text",
        "CREATE INDEX idx_tokens_user ON tokens(user_id)",
        "INSERT INTO users (name, email) VALUES ('Ann', 'ann@x.example')",
        "INSERT INTO settings (key, value) VALUES ('color', 'blue')",
        "GRANT SELECT ON secrets TO reader",
        "SHOW GRANTS FOR 'bob'@'%'",
        "identified by its name",
        'File "/app/auth/tokens.py", line 12, in verify',
        "KeyError: 'api_key'",
        "401 Unauthorized: missing bearer token",
        'error: password authentication failed for user "app"',
        "FATAL: no pg_hba.conf entry for host",
        "Permission denied (publickey,password).",
        "jwt expired",
        "invalid_client: secret mismatch",
        "TokenExpiredError at 2026-11-22",
        "PASS  src/auth.test.ts (5.2 s)",
        "PASS tests/login.spec.js",
        "✓ resets the password (12 ms)",
        "ok 12 - token is refreshed",
        "Compiling token-parser v0.3.1",
        "Downloading secret-service-3.0.1.crate",
    )
    hs(
        "Das Passwort muss 12 Zeichen lang sein",
        "Bitte ändern Sie Ihr Passwort bis 01.12.2026",
        "Passwort vergessen?",
        "Kennwortrichtlinie 2026",
        "Der Schlüssel liegt unter der Matte",
        "Le mot de passe doit contenir 8 caractères",
        "Mot de passe oublié ?",
        "La contraseña debe tener 8 caracteres",
        "¿Olvidaste tu contraseña?",
        "La clave del éxito es la constancia",
        "A senha deve ter 8 caracteres",
        "la password è scaduta",
        "Wachtwoord vergeten?",
        "Zapomniałeś hasła?",
        "Пароль должен содержать 8 символов",
        "Забыли пароль?",
        "パスワードを忘れた場合",
        "密码长度至少为8位",
        "请输入密码",
        "비밀번호를 잊으셨나요?",
        "Şifremi unuttum",
        "Unohditko salasanan?",
        "Elfelejtette a jelszót?",
        "The code review took 45 minutes",
        "use code SUMMER25 at checkout"[:8],
        "zip code 94107",
        "dial code 0049",
        "exit code 137",
        "The PIN on the board is GPIO17",
        "pin 13 is the LED",
        "pinned 12 messages",
        "session 12: login flow",
        "account 12 of 30 done",
        "login/logout flow",
        "The login page / dashboard",
        "sign in with Google",
        "credit card number is required",
        "IBAN is missing",
        "card ending in 4242",
        "He scored 4 / 5",
    )
    for v in [
        {"page_token": "x"},
        {"nextToken": None},
        {"tokens": 12},
        {"maxOutputTokens": 8192},
        {"usage": {"input_tokens": 12, "output_tokens": 34}},
        {"stop_sequences": ["</s>"]},
        {"password_policy": {"min": 8}},
        {"passwordResetRequired": True},
        {"forgotPasswordUrl": "https://x/forgot"},
        {"auth": "oauth2"},
        {"authType": "IAM"},
        {"authorized": True},
        {"author": {"name": "Ann", "email": "a@x"}},
        {"keys": ["a", "b"]},
        {"key": "ENG-123"},
        {"projectKey": "ENG"},
        {"issueKey": "SEC-12"},
        {"primaryKey": "id"},
        {"keyId": "abc"},
        {"kid": "2026-01"},
        {"jwks_uri": "https://x/jwks"},
        {"kty": "RSA", "n": b64u(60), "e": "AQAB"},
        {"publicKey": b64(32)},
        {"fingerprint": hx(40)},
        {"checksum": "crc32:" + hx(8)},
        {"sha512": b64(64)},
        {"blurhash": "LEHV6nWB2yk8pyo0adR*.7kCMdnj"},
        {"thumbnail": b64(200)},
        {"type": "image", "data": "/9j/4AAQSkZJRg" + b64(300), "mimeType": "image/jpeg"},
        {"blob": "JVBERi0xLjQK" + b64(200)},
        {"embedding": [0.01, -0.2]},
        {"vector_id": uuid()},
        {"session": "planning"},
        {"sessions": 14},
        {"cookie": False},
        {"cookies": []},
        {"signature": "Ann B., CEO"},
        {"signed": True},
        {"secretId": "prod/db"},
        {"secrets": ["DB_PASSWORD", "API_KEY"]},
        {"required": ["password"]},
        {"name": "password", "type": "string"},
        {"name": "token", "in": "header", "required": True},
        {"columns": ["id", "name"], "rows": [[1, "a"]]},
        {"code": "print('hello')"},
        {"code": 404},
        {"pin": "GPIO4"},
        {"pinned": True},
        {"ssn_required": False},
        {"credentials": "include"},
        {"credential_type": "oauth"},
        {"private": False},
        {"privacy": "unlisted"},
        {"selector": "#search", "value": "red shoes"},
        {"element": "Search field", "ref": "e3", "text": "laptop 15 inch"},
        {"element": "Submit button", "ref": "e9"},
        {"fields": [{"name": "Email", "type": "textbox", "value": "a@x.example"}]},
        {"env": [{"name": "LOG_LEVEL", "value": "debug"}]},
        {"args": ["--host", "h", "-p", "8080"]},
        {"args": ["run", "--token-file", "/run/t"]},
        {"url": "https://x.example/?code=200&state=ok"},
        {"number": 1234567890123456},
        {"order_id": "4111-2222-3333-4444"},
        {"q": "password manager comparison 2026"},
        {"subject": "Password expiry notice"},
    ]:
        H("j " + json.dumps(v)[:40], v)
    return made.secrets, made.plain
