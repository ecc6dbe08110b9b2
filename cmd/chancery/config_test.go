package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/migrations"
	"github.com/chancery-ca/chancery/strictyaml"
)

const soundConfig = `replica: a
database: {url: "postgres://localhost/chancery"}
hsm:
  module: /usr/lib/softhsm/libsofthsm2.so
  token: {label: chancery}
  pin: {file: pin}
authorities: [issuing-1]
namespaces:
  - {name: team-a, dns: [team-a.example], ip: [10.1.0.0/16], profiles: [tls-server]}
`

func TestConfigIsReadWithOverrides(t *testing.T) {
	c, err := parseConfig("/etc/chancery/chancery.yaml", []byte(soundConfig),
		[]string{"CHANCERY_LISTEN_API=0.0.0.0:1", "CHANCERY_HSM_SESSIONS=3", "CHANCERY_TLS_NAMES=a.example,192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen.API != "0.0.0.0:1" || c.HSM.Sessions != 3 || len(c.TLS.serviceName().DNS) != 1 || len(c.TLS.serviceName().IP) != 1 {
		t.Errorf("the environment does not override: %+v", c)
	}
	if c.HSM.PIN.File != "/etc/chancery/pin" {
		t.Errorf("the PIN file is %q: a relative path counts from the configuration's directory", c.HSM.PIN.File)
	}
	if n := c.namespaces()["team-a"]; !n.OwnsDNS("www.team-a.example") || n.OwnsDNS("team-b.example") {
		t.Errorf("namespace %+v", n)
	}
}

// TestVariablesOfTheEnvironment: what is set for a field and does not fit, or for none, is named as it stands in the environment.
func TestVariablesOfTheEnvironment(t *testing.T) {
	t.Parallel()
	named := strings.Replace(soundConfig, "{file: pin}", "{env: CHANCERY_MY_PIN}", 1)
	if _, err := parseConfig("c.yaml", []byte(named), []string{
		"CHANCERY_HOME=/home", "CHANCERY_API=https://ca", "CHANCERY_TOKEN=t", "CHANCERY_MY_PIN=1234", "CHANCERY_LOG_LEVEL=", "OTHER=1",
		"CHANCERY_SERVICE_HOST=10.0.0.1", "CHANCERY_SERVICE_PORT=8443", "CHANCERY_SERVICE_PORT_API=8443", "CHANCERY_PORT=tcp://10.0.0.1:8443",
		"CHANCERY_PORT_8443_TCP=tcp://10.0.0.1:8443", "CHANCERY_PORT_8443_TCP_ADDR=10.0.0.1", "CHANCERY_OPERATIONS_SERVICE_HOST=10.0.0.2",
	}); err != nil {
		t.Error("what others have set is refused: ", err)
	}
	_, err := parseConfig("c.yaml", []byte(soundConfig), []string{
		"CHANCERY_DATABASE_MAX_CONNECTIONS=many", "CHANCERY_DATABASE_MAX_CLOCK_SKEW=soon", "CHANCERY_LOG_LEVL=debug", "CHANCERY_MY_PIN=1234",
		"CHANCERY_LISTEN_API=0.0.0.0:1",
	})
	var wrong misuse
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		"\nCHANCERY_DATABASE_MAX_CONNECTIONS: ", "CHANCERY_DATABASE_MAX_CLOCK_SKEW: ", "\nCHANCERY_LOG_LEVL is for no field",
		"is CHANCERY_LOG_LEVEL meant?", "\nCHANCERY_MY_PIN is for no field",
	} {
		if !strings.Contains(strings.ReplaceAll(err.Error(), ": CHANCERY", ":\nCHANCERY"), want) {
			t.Errorf("it does not say %q: %v", want, err)
		}
	}
	for _, not := range []string{"MaxConnections", "CHANCERY_LISTEN_API", "1234"} {
		if strings.Contains(err.Error(), not) {
			t.Errorf("it says %q: %v", not, err)
		}
	}
}

func TestConfigIsRefusedWithLines(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown field":    {"replica: a", "replcia: a", "c.yaml:1: replcia: unknown field"},
		"two keys":         {"replica: a", "replica: a\nreplica: b", "c.yaml:2: replica: the key stands here twice"},
		"no database":      {`{url: "postgres://localhost/chancery"}`, "{}", "c.yaml:2: database: exactly one of"},
		"two PINs":         {"{file: pin}", "{file: pin, env: P}", "c.yaml:6: hsm.pin: 2 sources"},
		"a PIN in place":   {"{file: pin}", "{value: 1234}", "c.yaml:6: value: unknown field"},
		"no token":         {"{label: chancery}", "{}", "c.yaml:5: hsm.token"},
		"authority twice":  {"[issuing-1]", "[issuing-1, issuing-1]", "c.yaml:7: authorities[1]"},
		"bad namespace":    {"name: team-a", "name: Team A", "c.yaml:9: namespaces[0].name"},
		"reserved name":    {"name: team-a", "name: chancery-service", "c.yaml:9: namespaces[0].name"},
		"bad prefix":       {"10.1.0.0/16", "10.1.0.0/99", "c.yaml:9"},
		"bad listen":       {"replica: a", "replica: a\nlisten: {api: nowhere}", "c.yaml:2: listen.api"},
		"bad size":         {"replica: a", "replica: a\nlimits: {body: 1TB}", "c.yaml:2: limits.body"},
		"too few sessions": {"  pin:", "  sessions: 0\n  pin:", "c.yaml:6: hsm.sessions"},
		"bad name":         {"replica: a", "replica: a\ntls: {names: [a.example, bad name]}", "c.yaml:2: tls.names[1]"},
		"any name":         {"replica: a", "replica: a\ntls: {names: [\"*\"]}", "c.yaml:2: tls.names[0]"},
		"bad level":        {"replica: a", "replica: a\nlog: {level: loud}", "c.yaml:2: log.level"},
		"bad CAA domain":   {"replica: a", "replica: a\ncaa: {domains: [CA]}", "c.yaml:2: caa.domains[0]"},
		"bad CAA timeout":  {"replica: a", "replica: a\ncaa: {timeout: 2h}", "c.yaml:2: caa.timeout"},
		"bad resolver":     {"replica: a", "replica: a\ncaa: {resolvers: [nowhere]}", "c.yaml:2: caa.resolvers"},
		"bucket alone":     {"replica: a", "replica: a\ncrls: {s3: {bucket: lists}}", "c.yaml:2: crls.s3.endpoint"},
		"bucket's name": {
			"replica: a", "replica: a\ncrls:\n  s3:\n    endpoint: https://s3.example\n    bucket: A",
			"c.yaml:5: crls.s3.bucket",
		},
		"bucket in address": {
			"replica: a", "replica: a\ncrls: {s3: {endpoint: \"https://s3.example/lists\", bucket: lists}}",
			"c.yaml:2: crls.s3.endpoint",
		},
		"bucket's prefix": {
			"replica: a", "replica: a\ncrls: {s3: {endpoint: \"https://s3.example\", bucket: lists, prefix: /a}}",
			"c.yaml:2: crls.s3.prefix",
		},
		"bucket's region": {
			"replica: a", "replica: a\ncrls: {s3: {endpoint: \"https://s3.example\", bucket: lists, region: A}}",
			"c.yaml:2: crls.s3.region",
		},
		"one key of two": {
			"replica: a", "replica: a\ncrls: {s3: {endpoint: \"https://s3.example\", bucket: lists, secret_key_file: s}}",
			"c.yaml:2: crls.s3",
		},
		"clock skew":        {`chancery"}`, `chancery", max_clock_skew: 2h}`, "c.yaml:2: database.max_clock_skew"},
		"empty authorities": {"[issuing-1]", "[]", "c.yaml:7: authorities"},
		"plain issuer":      {"replica: a", "replica: a\noidc: [{issuer: \"http://id.example\"}]", "c.yaml:2: oidc[0].issuer"},
		"issuer twice": {
			"replica: a", "replica: a\noidc: [{issuer: \"https://id.example\"}, {issuer: \"https://id.example\"}]",
			"oidc[1].issuer",
		},
		"HMAC": {
			"replica: a", "replica: a\noidc: [{issuer: \"https://id.example\", algorithms: [HS256]}]",
			"c.yaml:2: oidc[0].algorithms[0]",
		},
		"no audience": {
			"replica: a", "replica: a\noidc: [{issuer: \"https://id.example\", audiences: [\"\"]}]",
			"c.yaml:2: oidc[0].audiences",
		},
		"anybody's group": {
			"replica: a", "replica: a\noidc: [{issuer: \"https://id.example\"}, {issuer: \"https://other.example\"}]\n" +
				"identities: [{name: x, oidc: {groups: [pki]}, namespace: team-a, roles: [requester]}]", "c.yaml:3: identities[0].oidc",
		},
		"console's path":   {"replica: a", "replica: a\nconsole: {url: \"https://ca.example/console\"}", "c.yaml:2: console.url"},
		"console in clear": {"replica: a", "replica: a\nconsole: {url: \"http://ca.example\"}", "c.yaml:2: console.url"},
		"no console":       {"replica: a", "replica: a\nconsole: {login: {client_id: c}}", "c.yaml:2: console.url"},
		"long idle":        {"replica: a", "replica: a\nconsole: {url: \"https://ca.example\", idle: 25h}", "c.yaml:2: console.idle"},
		"short life":       {"replica: a", "replica: a\nconsole: {url: \"https://ca.example\", lifetime: 1m}", "c.yaml:2: console.lifetime"},
		"unknown provider": {"replica: a", "replica: a\nconsole: {url: \"https://ca.example\", login: {issuer: \"https://id.example\", " +
			"client_id: c}}", "c.yaml:2: console.login.issuer"},
		"no client": {
			"replica: a", "replica: a\noidc: [{issuer: \"https://id.example\"}]\nconsole: {url: \"https://ca.example\", login: {issuer: " +
				"\"https://id.example\"}}",
			"c.yaml:3: console.login.client_id",
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(soundConfig, c.old, c.new, 1)
			if _, err := parseConfig("c.yaml", []byte(text), nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(soundConfig))
	f.Add([]byte("replica: [\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := parseConfig("c.yaml", data, nil); err == nil && (len(c.Authorities) == 0 || c.allTokens()[0].Module == "") {
			t.Errorf("an incomplete configuration was accepted: %+v", c)
		}
	})
}

// compose is the part of docker-compose.yml that has to agree with the program.
type compose struct {
	Name     string                    `yaml:"name"`
	Services map[string]composeService `yaml:"services"`
	Volumes  map[string]any            `yaml:"volumes"`
	Networks map[string]any            `yaml:"networks"`
	Secrets  map[string]struct {
		File string `yaml:"file"`
	} `yaml:"secrets"`
}

type composeService struct {
	Profiles        []string          `yaml:"profiles"`
	Image           string            `yaml:"image"`
	Build           any               `yaml:"build"`
	Command         []string          `yaml:"command"`
	Entrypoint      []string          `yaml:"entrypoint"`
	Restart         string            `yaml:"restart"`
	StopGracePeriod string            `yaml:"stop_grace_period"`
	Environment     map[string]string `yaml:"environment"`
	User            string            `yaml:"user"`
	GroupAdd        []string          `yaml:"group_add"`
	ReadOnly        bool              `yaml:"read_only"`
	CapDrop         []string          `yaml:"cap_drop"`
	SecurityOpt     []string          `yaml:"security_opt"`
	Tmpfs           []string          `yaml:"tmpfs"`
	Secrets         []string          `yaml:"secrets"`
	Volumes         []string          `yaml:"volumes"`
	Networks        []string          `yaml:"networks"`
	NetworkMode     string            `yaml:"network_mode"`
	Ports           []string          `yaml:"ports"`
	Healthcheck     any               `yaml:"healthcheck"`
	DependsOn       map[string]any    `yaml:"depends_on"`
}

// TestComposeAgreesWithServe reads docker-compose.yml and the configuration that it mounts with the parsers of the program, and compares.
func TestComposeAgreesWithServe(t *testing.T) {
	text := read(t, "../../docker-compose.yml")
	var file compose
	if err := strictyaml.Decode("docker-compose.yml", text, &file).Err(); err != nil {
		t.Fatal(err)
	}
	cfg, err := parseConfig("deploy/chancery.yaml", read(t, "../../deploy/chancery.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	service := file.Services["chancery"]
	if strings.Join(service.Command, " ") != "serve --config /etc/chancery/chancery.yaml" ||
		!mounts(service, "./deploy/chancery.yaml:/etc/chancery/chancery.yaml:ro") {
		t.Errorf("the service is started by %v with %v", service.Command, service.Volumes)
	}
	second := file.Services["chancery-2"]
	alike := second
	alike.Environment, alike.Ports = service.Environment, service.Ports
	if !reflect.DeepEqual(alike, service) {
		t.Errorf("the replicas differ in more than name and ports: %+v and %+v", service, second)
	}
	if name := second.Environment["CHANCERY_REPLICA"]; name == "" || name == cfg.Replica || len(second.Environment) != 1 {
		t.Errorf("the second replica is not one of its own: %+v", second)
	}
	holder := file.Services["keeper"]
	for name, s := range map[string]composeService{
		"chancery": service, "chancery-2": second, "setup": file.Services["setup"],
		"keeper": holder,
	} {
		if !s.ReadOnly || s.User == "" || strings.HasPrefix(s.User, "0") || len(s.CapDrop) != 1 || s.CapDrop[0] != "ALL" {
			t.Errorf("%s is not confined: %+v", name, s)
		}
	}
	if service.Healthcheck == nil || file.Services["postgres"].Healthcheck == nil {
		t.Error("a health check is missing")
	}
	kept, err := loadKeeperConfig("../../deploy/keeper.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for path, s := range map[string]composeService{cfg.Database.URLFile: service, kept.Tokens[0].PIN.File: holder} {
		name := strings.TrimPrefix(path, "/run/secrets/")
		if _, known := file.Secrets[name]; !known || !slices.Contains(s.Secrets, name) {
			t.Errorf("%s is no secret of the service that reads it", path)
		}
	}
	checkComposeKeeper(t, cfg, kept, service, holder)
	ports := strings.Join(service.Ports, " ")
	for _, address := range []string{cfg.Listen.API, cfg.Listen.Distribution} {
		port := address[strings.LastIndexByte(address, ':'):]
		if !strings.HasPrefix(address, "0.0.0.0") || !strings.Contains(ports, port) {
			t.Errorf("%s is not among the ports %s", address, ports)
		}
	}
	if !strings.Contains(string(text), "http://"+cfg.Listen.Operations+"/readyz") {
		t.Error("the health check does not ask the operations listener")
	}
	plan, err := ceremony.ParsePlan("deploy/ceremony.yaml", read(t, "../../deploy/ceremony.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{}
	for _, a := range plan.Authorities {
		made[a.Name] = true
	}
	for _, name := range cfg.Authorities {
		if !made[name] {
			t.Errorf("authority %s is configured, and the ceremony does not make it", name)
		}
	}
	if len(plan.Logs) != 1 || plan.Logs[0].Origin != cfg.Audit.Origin ||
		cfg.Audit.Key.PublicKey != "/srv/chancery/"+plan.Logs[0].Name+".key.pem" {
		t.Errorf("the log %s is configured, and the ceremony makes %+v", cfg.Audit.Origin, plan.Logs)
	}
}

// TestComposeMakesTheRolesOfTheMigrations: the owner of the database, as deploy/postgres-init.sh makes it, cannot make roles.
func TestComposeMakesTheRolesOfTheMigrations(t *testing.T) {
	cluster := string(read(t, "../../deploy/postgres-init.sh"))
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	roles := 0
	for _, file := range files {
		sql, err := fs.ReadFile(migrations.FS, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range regexp.MustCompile(`CREATE ROLE \w+ NOLOGIN`).FindAllString(string(sql), -1) {
			if roles++; !strings.Contains(cluster, line) {
				t.Errorf("%s: %s, and deploy/postgres-init.sh does not", file, line)
			}
		}
	}
	if roles == 0 {
		t.Error("no migration makes a role: the test asks wrongly")
	}
}

// checkComposeKeeper looks that the keeper is a boundary: another user, no network, and nothing of its own in the service's reach.
func checkComposeKeeper(t *testing.T, cfg Config, kept KeeperConfig, service, holder composeService) {
	t.Helper()
	if cfg.HSM.Isolation != isolationKeeper || cfg.HSM.Socket != kept.Socket {
		t.Errorf("the service uses %+v, and the keeper listens on %s", cfg.HSM, kept.Socket)
	}
	user, _, _ := strings.Cut(service.User, ":")
	if holderUser, _, _ := strings.Cut(holder.User, ":"); holderUser == user || !slices.Contains(kept.Peers, user) ||
		holder.NetworkMode != "none" {
		t.Errorf("the keeper is %+v with peers %v, the service runs as %s", holder, kept.Peers, service.User)
	}
	if slices.Contains(service.Secrets, "pin") {
		t.Error("the service sees the PIN")
	}
	for _, v := range service.Volumes {
		if !strings.HasSuffix(v, ":ro") && !strings.HasSuffix(v, ":"+filepath.Dir(kept.Socket)) {
			t.Errorf("the service can write to %s", v)
		}
	}
	var keys KeyFile
	if err := strictyaml.Decode("keys.yaml", read(t, "../../deploy/keys.yaml"), &keys).Err(); err != nil {
		t.Error(err)
	}
	if len(keys.Keys) != len(cfg.Authorities)+1 || keys.Keys[0].Name != cfg.Authorities[0] {
		t.Errorf("the keeper's keys are not those of the authorities %v and of the log", cfg.Authorities)
	}
	if log := keys.Keys[len(keys.Keys)-1]; log.Checkpoints == nil || log.Checkpoints.Origin != cfg.Audit.Origin {
		t.Errorf("the keeper's last key does not sign the checkpoints of %s", cfg.Audit.Origin)
	}
}

func mounts(s composeService, volume string) bool {
	for _, v := range s.Volumes {
		if v == volume {
			return true
		}
	}
	return false
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
