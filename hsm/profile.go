package hsm

import (
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// Profile is what is known of the tokens of one vendor: what they lack of what this package does, and what they do in a way of their own.
// It is a declaration; the tests of this package hold it against the real module, in both directions.
type Profile struct {
	Name     string
	Measured string // on what it was measured; empty where it comes from the vendor's documentation alone, or from nowhere
	Lacks    []Capability
	Quirks   []Quirk
	// Software means that the library itself computes, on the processors of this machine.
	Software bool
}

// Has tells whether tokens of the profile are expected to have the capability.
func (p Profile) Has(c Capability) bool { return !slices.Contains(p.Lacks, c) }

// Quirk is a peculiarity of a vendor's tokens that somebody will stumble over.
type Quirk struct {
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

// Capability is something that this package can do with a token that has it.
type Capability string

// The capabilities besides the generation of each Algorithm, which is a capability by the algorithm's name: Capability(hsm.ECDSAP256).
const (
	CanPKCS1             Capability = "rsa-pkcs1"              // signatures by RSASSA-PKCS1-v1_5
	CanPSS               Capability = "rsa-pss"                // signatures by RSASSA-PSS with a salt as long as the hash
	CanPSSOtherSalt      Capability = "rsa-pss-other-salt"     // and with a salt of another length
	CanOAEPSHA1          Capability = "rsa-oaep-sha1"          // encryption by RSA-OAEP
	CanOAEPSHA256        Capability = "rsa-oaep-sha256"        // and with SHA-256
	CanOAEPContext       Capability = "rsa-oaep-context"       // and with a label
	CanGCM               Capability = "aes-gcm"                // encryption by AES-GCM
	CanDigest            Capability = "digest"                 // hashing in the token
	CanWrapKWP           Capability = "wrap-aes-kwp"           // see AESKWP
	CanWrapOAEP          Capability = "wrap-rsa-oaep"          // see OAEPWrap, with SHA-256
	CanWrapOAEPSHA1      Capability = "wrap-rsa-oaep-sha1"     // with SHA-1
	CanWrapRSAAES        Capability = "wrap-rsa-aes"           // see RSAAES, with SHA-256
	CanWrapRSAAESSHA1    Capability = "wrap-rsa-aes-sha1"      // with SHA-1
	CanStoreCertificates Capability = "certificates"           // CKO_CERTIFICATE objects
	CanSetLabel          Capability = "set-label"              // C_SetAttributeValue of CKA_LABEL on a modifiable key
	KnowsUsages          Capability = "usages"                 // a key for signing does not decrypt
	KnowsModifiable      Capability = "CKA_MODIFIABLE"         // false is taken and told
	KnowsCopyable        Capability = "CKA_COPYABLE"           // false is taken and told
	KnowsIndestructible  Capability = "CKA_DESTROYABLE"        // false is taken and told
	KnowsMechanisms      Capability = "CKA_ALLOWED_MECHANISMS" // is taken and enforced
	CanInitToken         Capability = "init-token"             // see InitToken
	CanChangePIN         Capability = "change-pin"             // see ChangePIN, of the user
	CanChangeOfficersPIN Capability = "change-so-pin"          // and of the security officer
	CanUnlockPIN         Capability = "unlock-pin"             // see UnlockPIN
	TellsLocal           Capability = "CKA_LOCAL"              // of a key generated in the token; see Config.AcceptNotLocal
	TellsFailedLogin     Capability = "failed-login-flags"     // CKF_USER_PIN_COUNT_LOW after a wrong PIN; else it may be tried again unasked
	TakesOAEPNoSource    Capability = "rsa-oaep-no-source"     // CK_RSA_PKCS_OAEP_PARAMS.source = 0, as pkcs11-tool writes it; this package says CKZ_DATA_SPECIFIED
	KeepsTwins           Capability = "two-keys-of-one-id"     // a second key of the same CKA_ID leaves the first as it is
)

// profile is a Profile with what the templates of its tokens say. crypto11 and the modules have defaults of their own, which differ (an RSA
// key may decrypt, an EC key may derive, CKA_PRIVATE may be false); so everything is said that the vendor accepts.
type profile struct {
	Profile
	manufacturer string      // how CK_TOKEN_INFO.manufacturerID begins; empty fits every token
	library      string      // how CK_INFO.manufacturerID begins; empty fits every library
	private      []condition // of the private key; read back after generation
	public       []condition // of the public key
	mechanisms   bool        // whether CKA_ALLOWED_MECHANISMS is understood
	unread       []uint      // attributes that are not asked for, since asking is an error that looks like a lost token
	silent       []uint      // attributes that no template may name, since the token refuses them or decides by itself
	unwrapped    []uint      // attributes that no template of an unwrapped key may name besides
	// forgets says that a slot which answers CKR_GENERAL_ERROR is listed no more once the library is initialised anew.
	forgets bool
}

// conservative is what vendors accept: some refuse CKA_MODIFIABLE, CKA_COPYABLE or CKA_SIGN_RECOVER (CKR_TEMPLATE_INCONSISTENT).
var conservative = []condition{
	{pkcs11.CKA_TOKEN, true},
	{pkcs11.CKA_PRIVATE, true},
	{pkcs11.CKA_SENSITIVE, true},
	{pkcs11.CKA_EXTRACTABLE, false},
	{pkcs11.CKA_SIGN, true},
	{pkcs11.CKA_DECRYPT, false},
	{pkcs11.CKA_UNWRAP, false},
	{pkcs11.CKA_DERIVE, false},
}

var conservativePublic = []condition{
	{pkcs11.CKA_TOKEN, true},
	{pkcs11.CKA_VERIFY, true},
	{pkcs11.CKA_ENCRYPT, false},
}

var softHSM = profile{
	Profile: Profile{
		Name:     "SoftHSM",
		Measured: "SoftHSM 2.6.1",
		Software: true,
		Lacks:    []Capability{CanOAEPSHA256, CanOAEPContext, CanWrapOAEP, CanWrapRSAAES},
		Quirks: []Quirk{
			{
				"RSA-OAEP with SHA-1 and without a label alone; anything else is CKR_ARGUMENTS_BAD",
				"name the hash sha1 when encrypting, wrapping and unwrapping",
			},
			{"a PIN is never locked, however often it is wrong", "nothing that a token can do; it is software and holds keys in files"},
			{
				"a token directory that goes away and comes back does not heal the running process (CKR_OBJECT_HANDLE_INVALID, CKR_GENERAL_ERROR)",
				"open the token anew",
			},
			{"several processes writing to one token may damage it", "one process for each token; Chancery serialises its own writers"},
		},
	},
	manufacturer: "SoftHSM",
	private: append(slices.Clone(conservative), []condition{
		{pkcs11.CKA_SIGN_RECOVER, false},
		{pkcs11.CKA_MODIFIABLE, false},
		{pkcs11.CKA_COPYABLE, false},
	}...),
	public: []condition{
		{pkcs11.CKA_TOKEN, true},
		{pkcs11.CKA_VERIFY, true},
		{pkcs11.CKA_PRIVATE, false},
		{pkcs11.CKA_ENCRYPT, false},
		{pkcs11.CKA_WRAP, false},
		{pkcs11.CKA_MODIFIABLE, false},
	},
	mechanisms: true,
	// It takes CKA_MODIFIABLE from whoever generates or creates a key, and from nobody else. What it refuses leaves an object without a name
	// and without a key in the token.
	unwrapped: []uint{pkcs11.CKA_MODIFIABLE},
	forgets:   true, // of a token whose directory is away
}

// profiles, the most particular first. The last fits everything. Those that are not measured are of the vendors' documentation: their
// templates are the conservative ones, and nothing is said to be lacking that was not tried.
var profiles = []profile{
	{
		Profile: Profile{
			Name:     "SoftHSM behind p11-kit",
			Measured: "p11-kit 0.24.1, server and client, over SoftHSM 2.6.1",
			Lacks:    append(slices.Clone(softHSM.Lacks), Capability(Ed25519), CanGCM, CanWrapKWP, CanWrapRSAAESSHA1, CanInitToken),
			Quirks: append(slices.Clone(softHSM.Quirks),
				Quirk{
					"a server shows the tokens that it was started for, and no slot in which one could be made",
					"initialise the token where the server runs, with the module itself",
				},
				Quirk{
					"mechanisms that p11-kit's protocol does not know (AES-GCM, AES key wrap, EdDSA) are CKR_MECHANISM_INVALID, whatever " +
						"the module behind it has",
					"use the module itself for them",
				},
				Quirk{
					"reading CKA_ALLOWED_MECHANISMS is CKR_DEVICE_ERROR, as if the token were lost; it is enforced all the same",
					"none needed: Chancery does not ask for it, and does not show it",
				},
				Quirk{"a server that ends leaves CKR_DEVICE_ERROR behind until the library is finalised", "close the token and open it anew"},
				Quirk{
					"each caller in a process has sessions and a log-in of its own",
					"none: Chancery logs in twice, and never with a PIN that failed once",
				}),
		},
		manufacturer: softHSM.manufacturer, library: "PKCS#11 Kit",
		private: softHSM.private, public: softHSM.public, mechanisms: softHSM.mechanisms,
		unread: []uint{pkcs11.CKA_ALLOWED_MECHANISMS}, unwrapped: softHSM.unwrapped,
	},
	softHSM,
	{
		Profile: Profile{
			Name:     "NSS softokn",
			Measured: "NSS 3.87.1 behind p11-kit 0.24.1",
			Software: true,
			Lacks: []Capability{
				Capability(Ed25519), CanGCM, CanWrapKWP, CanWrapRSAAES, CanWrapRSAAESSHA1, TellsLocal, KnowsCopyable, KnowsIndestructible,
				KnowsMechanisms, TellsFailedLogin, TakesOAEPNoSource, KeepsTwins, CanInitToken, CanChangeOfficersPIN, CanUnlockPIN,
			},
			Quirks: []Quirk{
				{
					"a database that has a password has no security officer: logging in as one is CKR_USER_TYPE_INVALID, and a password that " +
						"is lost is lost with the keys",
					"make the database with certutil -N, change its password with `chancery hsm pin change`, and keep it twice",
				},
				{
					"a signature that is not valid is CKR_DEVICE_ERROR at times, as if the token were lost",
					"none needed: Chancery then verifies in software, before it says so",
				},
				{
					"CKA_LOCAL is false for every key, so that a generated key looks like an imported one",
					"for an authority: another token; for trials in Go: hsm.Config.AcceptNotLocal",
				},
				{
					"C_WrapKey wraps a key whose CKA_EXTRACTABLE is false",
					"Chancery does not ask it to; another program of whoever has the PIN can take every key out",
				},
				{
					"a second key of the same CKA_ID silently replaces the first",
					"Chancery refuses a CKA_ID that is taken; other programs must do so, too",
				},
				{
					"an attribute that it does not know, such as CKA_COPYABLE or CKA_ALLOWED_MECHANISMS, is CKR_GENERAL_ERROR",
					"Chancery leaves these attributes out",
				},
				{
					"the token does not tell that a log-in failed (CKF_USER_PIN_COUNT_LOW), so that a service which is started again tries the PIN again",
					"see that the PIN is right before the service is started; a keeper that runs tries a wrong PIN once",
				},
				{"AES-GCM and AES key wrap tell a length that is too short (CKR_BUFFER_TOO_SMALL)", "encrypt and wrap in another token"},
				{
					"C_Initialize needs parameters that no Go program can give",
					"load it through p11-kit-proxy.so, with x-init-reserved in the module's file",
				},
			},
		},
		manufacturer: "Mozilla Foundation",
		private:      conservative,
		public:       conservativePublic,
	},
	{
		Profile: Profile{
			Name:     "tpm2-pkcs11",
			Measured: "tpm2-pkcs11 1.9.0 on swtpm 0.7.1 with tpm2-abrmd",
			Lacks: []Capability{
				Capability(ECDSAP521), Capability(Ed25519), Capability(RSA4096), Capability(AES128), Capability(AES256),
				Capability(HMACSHA256), Capability(HMACSHA384), Capability(HMACSHA512),
				CanPSSOtherSalt, CanOAEPContext, CanGCM, CanWrapKWP, CanWrapOAEP, CanWrapOAEPSHA1, CanWrapRSAAES, CanWrapRSAAESSHA1, KnowsUsages,
				TellsFailedLogin,
			},
			Quirks: []Quirk{
				{
					"a key both signs and decrypts; a template that says otherwise is CKR_GENERAL_ERROR",
					"Chancery leaves these attributes out, and signs with the key only what an authority signs",
				},
				{
					"each key in use takes one of the resource manager's places, of which there are 27; then everything is CKR_GENERAL_ERROR",
					"start tpm2-abrmd with --max-transients=100, and keep few keys in a token",
				},
				{
					"a key stays in use after an operation with it has failed, and is then not destroyed until the library has been finalised",
					"close the token, open it anew, and destroy the key then",
				},
				{
					"CKA_EXTRACTABLE and CKA_SENSITIVE of a key can be changed afterwards; they are notes in a file and change nothing in the TPM",
					"protect the store's directory like the PIN",
				},
				{
					"without a resource manager C_Initialize or the first log-in fails with a TPM error 0x902",
					"install and start tpm2-abrmd, or use the kernel's /dev/tpmrm0",
				},
				{
					"the token does not tell that a log-in failed (CKF_USER_PIN_COUNT_LOW), so that a service which is started again tries the PIN again",
					"see that the PIN is right before the service is started; a keeper that runs tries a wrong PIN once",
				},
				{"a P-521 key is made whose public point cannot be read; it spoils listings of other programs", "take ecdsa-p384"},
			},
		},
		library: "tpm2-software",
		private: conservative,
		public:  conservativePublic,
		silent: []uint{
			pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_DECRYPT, pkcs11.CKA_ENCRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_WRAP,
		},
	},
	{
		Profile: Profile{Name: "AWS CloudHSM", Quirks: []Quirk{
			{
				"an attribute that the client does not support is CKR_TEMPLATE_INCONSISTENT; CKA_MODIFIABLE and CKA_PRIVATE take " +
					"their default alone",
				"Chancery names neither CKA_MODIFIABLE=false nor CKA_COPYABLE",
			},
			{"the PIN is user:password of a crypto user", "write both into the PIN file, with the colon"},
			{"a throttled call is CKR_DEVICE_ERROR", "try again; keep the number of sessions below the cluster's limit"},
		}},
		library: "Amazon",
		private: conservative,
		public:  conservativePublic,
	},
	{
		Profile: Profile{Name: "YubiHSM 2", Quirks: []Quirk{
			{"the PIN is four hexadecimal digits of the authentication key's number, and its password", "for key 1: 0001password"},
			{"there is room for 256 objects and 16 sessions", "keep sessions at 8 or below, and one authority in a device"},
		}},
		manufacturer: "Yubico",
		private:      conservative,
		public:       conservativePublic,
	},
	{
		Profile: Profile{Name: "Google Cloud KMS", Quirks: []Quirk{
			{
				"keys are made with Google's tools alone: C_GenerateKeyPair takes a template of its own, and nothing is imported",
				"make the key with gcloud, and name it to Chancery by its label",
			},
			{"the PIN is not looked at", "give any; who may sign is decided by the service account"},
		}},
		library: "Google",
		private: conservative,
		public:  conservativePublic,
	},
	{
		Profile: Profile{Name: "unknown vendor"},
		private: conservative,
		public:  conservativePublic,
	},
}

func profileFor(t TokenInfo) profile {
	for _, p := range profiles {
		if strings.HasPrefix(t.Manufacturer, p.manufacturer) && strings.HasPrefix(t.Library, p.library) {
			return p
		}
	}
	return profile{}
}

// Profile returns what is known of tokens like this one. Of an unknown vendor's everything is expected.
func (i TokenInfo) Profile() Profile {
	p := profileFor(i).Profile
	return Profile{Name: p.Name, Measured: p.Measured, Lacks: slices.Clone(p.Lacks), Quirks: slices.Clone(p.Quirks)}
}
