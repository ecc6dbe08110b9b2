package hsm

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// What PKCS#11 3.0 defines and the binding does not.
const (
	ckmAESKeyWrapKWP     = 0x210b
	ckmECEdwardsKeyPair  = 0x1055
	ckmECMontgomeryKeyPr = 0x1056
	ckmEDDSA             = 0x1057
	ckkECEdwards         = 0x40
)

// mechanismName is the name of a mechanism, or its number where it is the vendor's own or a rare one.
func mechanismName(mechanism uint) string {
	if name := mechanismNames[mechanism]; name != "" {
		return name
	}
	return fmt.Sprintf("0x%08x", mechanism)
}

// mechanismByName is the opposite of mechanismName.
func mechanismByName(name string) (uint, error) {
	for mechanism, known := range mechanismNames {
		if known == name {
			return mechanism, nil
		}
	}
	var number uint
	if _, err := fmt.Sscanf(name, "0x%x", &number); err != nil || fmt.Sprintf("0x%08x", number) != name {
		return 0, fmt.Errorf("%q is no mechanism; write its PKCS#11 name, such as CKM_ECDSA", name)
	}
	return number, nil
}

// CheckMechanism refuses what is no name of a mechanism.
func CheckMechanism(name string) error {
	_, err := mechanismByName(name)
	return err
}

// mechanismNames are the mechanisms of PKCS#11 that tokens of today show.
var mechanismNames = map[uint]string{
	ckmAESKeyWrapKWP:                          "CKM_AES_KEY_WRAP_KWP",
	ckmECEdwardsKeyPair:                       "CKM_EC_EDWARDS_KEY_PAIR_GEN",
	ckmECMontgomeryKeyPr:                      "CKM_EC_MONTGOMERY_KEY_PAIR_GEN",
	ckmEDDSA:                                  "CKM_EDDSA",
	pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN:          "CKM_RSA_PKCS_KEY_PAIR_GEN",
	pkcs11.CKM_RSA_PKCS:                       "CKM_RSA_PKCS",
	pkcs11.CKM_RSA_9796:                       "CKM_RSA_9796",
	pkcs11.CKM_RSA_X_509:                      "CKM_RSA_X_509",
	pkcs11.CKM_MD5_RSA_PKCS:                   "CKM_MD5_RSA_PKCS",
	pkcs11.CKM_SHA1_RSA_PKCS:                  "CKM_SHA1_RSA_PKCS",
	pkcs11.CKM_RSA_PKCS_OAEP:                  "CKM_RSA_PKCS_OAEP",
	pkcs11.CKM_RSA_X9_31_KEY_PAIR_GEN:         "CKM_RSA_X9_31_KEY_PAIR_GEN",
	pkcs11.CKM_RSA_X9_31:                      "CKM_RSA_X9_31",
	pkcs11.CKM_SHA1_RSA_X9_31:                 "CKM_SHA1_RSA_X9_31",
	pkcs11.CKM_RSA_PKCS_PSS:                   "CKM_RSA_PKCS_PSS",
	pkcs11.CKM_SHA1_RSA_PKCS_PSS:              "CKM_SHA1_RSA_PKCS_PSS",
	pkcs11.CKM_DSA_KEY_PAIR_GEN:               "CKM_DSA_KEY_PAIR_GEN",
	pkcs11.CKM_DSA:                            "CKM_DSA",
	pkcs11.CKM_DSA_SHA1:                       "CKM_DSA_SHA1",
	pkcs11.CKM_DSA_SHA224:                     "CKM_DSA_SHA224",
	pkcs11.CKM_DSA_SHA256:                     "CKM_DSA_SHA256",
	pkcs11.CKM_DSA_SHA384:                     "CKM_DSA_SHA384",
	pkcs11.CKM_DSA_SHA512:                     "CKM_DSA_SHA512",
	pkcs11.CKM_DSA_SHA3_224:                   "CKM_DSA_SHA3_224",
	pkcs11.CKM_DSA_SHA3_256:                   "CKM_DSA_SHA3_256",
	pkcs11.CKM_DSA_SHA3_384:                   "CKM_DSA_SHA3_384",
	pkcs11.CKM_DSA_SHA3_512:                   "CKM_DSA_SHA3_512",
	pkcs11.CKM_DH_PKCS_KEY_PAIR_GEN:           "CKM_DH_PKCS_KEY_PAIR_GEN",
	pkcs11.CKM_DH_PKCS_DERIVE:                 "CKM_DH_PKCS_DERIVE",
	pkcs11.CKM_SHA256_RSA_PKCS:                "CKM_SHA256_RSA_PKCS",
	pkcs11.CKM_SHA384_RSA_PKCS:                "CKM_SHA384_RSA_PKCS",
	pkcs11.CKM_SHA512_RSA_PKCS:                "CKM_SHA512_RSA_PKCS",
	pkcs11.CKM_SHA256_RSA_PKCS_PSS:            "CKM_SHA256_RSA_PKCS_PSS",
	pkcs11.CKM_SHA384_RSA_PKCS_PSS:            "CKM_SHA384_RSA_PKCS_PSS",
	pkcs11.CKM_SHA512_RSA_PKCS_PSS:            "CKM_SHA512_RSA_PKCS_PSS",
	pkcs11.CKM_SHA224_RSA_PKCS:                "CKM_SHA224_RSA_PKCS",
	pkcs11.CKM_SHA224_RSA_PKCS_PSS:            "CKM_SHA224_RSA_PKCS_PSS",
	pkcs11.CKM_SHA512_224:                     "CKM_SHA512_224",
	pkcs11.CKM_SHA512_224_HMAC:                "CKM_SHA512_224_HMAC",
	pkcs11.CKM_SHA512_224_HMAC_GENERAL:        "CKM_SHA512_224_HMAC_GENERAL",
	pkcs11.CKM_SHA512_224_KEY_DERIVATION:      "CKM_SHA512_224_KEY_DERIVATION",
	pkcs11.CKM_SHA512_256:                     "CKM_SHA512_256",
	pkcs11.CKM_SHA512_256_HMAC:                "CKM_SHA512_256_HMAC",
	pkcs11.CKM_SHA512_256_HMAC_GENERAL:        "CKM_SHA512_256_HMAC_GENERAL",
	pkcs11.CKM_SHA512_256_KEY_DERIVATION:      "CKM_SHA512_256_KEY_DERIVATION",
	pkcs11.CKM_SHA512_T:                       "CKM_SHA512_T",
	pkcs11.CKM_SHA512_T_HMAC:                  "CKM_SHA512_T_HMAC",
	pkcs11.CKM_SHA512_T_HMAC_GENERAL:          "CKM_SHA512_T_HMAC_GENERAL",
	pkcs11.CKM_SHA512_T_KEY_DERIVATION:        "CKM_SHA512_T_KEY_DERIVATION",
	pkcs11.CKM_SHA3_256_RSA_PKCS:              "CKM_SHA3_256_RSA_PKCS",
	pkcs11.CKM_SHA3_384_RSA_PKCS:              "CKM_SHA3_384_RSA_PKCS",
	pkcs11.CKM_SHA3_512_RSA_PKCS:              "CKM_SHA3_512_RSA_PKCS",
	pkcs11.CKM_SHA3_256_RSA_PKCS_PSS:          "CKM_SHA3_256_RSA_PKCS_PSS",
	pkcs11.CKM_SHA3_384_RSA_PKCS_PSS:          "CKM_SHA3_384_RSA_PKCS_PSS",
	pkcs11.CKM_SHA3_512_RSA_PKCS_PSS:          "CKM_SHA3_512_RSA_PKCS_PSS",
	pkcs11.CKM_SHA3_224_RSA_PKCS:              "CKM_SHA3_224_RSA_PKCS",
	pkcs11.CKM_SHA3_224_RSA_PKCS_PSS:          "CKM_SHA3_224_RSA_PKCS_PSS",
	pkcs11.CKM_DES_KEY_GEN:                    "CKM_DES_KEY_GEN",
	pkcs11.CKM_DES_ECB:                        "CKM_DES_ECB",
	pkcs11.CKM_DES_CBC:                        "CKM_DES_CBC",
	pkcs11.CKM_DES_MAC:                        "CKM_DES_MAC",
	pkcs11.CKM_DES_MAC_GENERAL:                "CKM_DES_MAC_GENERAL",
	pkcs11.CKM_DES_CBC_PAD:                    "CKM_DES_CBC_PAD",
	pkcs11.CKM_DES3_KEY_GEN:                   "CKM_DES3_KEY_GEN",
	pkcs11.CKM_DES3_ECB:                       "CKM_DES3_ECB",
	pkcs11.CKM_DES3_CBC:                       "CKM_DES3_CBC",
	pkcs11.CKM_DES3_MAC:                       "CKM_DES3_MAC",
	pkcs11.CKM_DES3_MAC_GENERAL:               "CKM_DES3_MAC_GENERAL",
	pkcs11.CKM_DES3_CBC_PAD:                   "CKM_DES3_CBC_PAD",
	pkcs11.CKM_DES3_CMAC_GENERAL:              "CKM_DES3_CMAC_GENERAL",
	pkcs11.CKM_DES3_CMAC:                      "CKM_DES3_CMAC",
	pkcs11.CKM_DES_OFB64:                      "CKM_DES_OFB64",
	pkcs11.CKM_DES_OFB8:                       "CKM_DES_OFB8",
	pkcs11.CKM_DES_CFB64:                      "CKM_DES_CFB64",
	pkcs11.CKM_DES_CFB8:                       "CKM_DES_CFB8",
	pkcs11.CKM_MD5:                            "CKM_MD5",
	pkcs11.CKM_MD5_HMAC:                       "CKM_MD5_HMAC",
	pkcs11.CKM_MD5_HMAC_GENERAL:               "CKM_MD5_HMAC_GENERAL",
	pkcs11.CKM_SHA_1:                          "CKM_SHA_1",
	pkcs11.CKM_SHA_1_HMAC:                     "CKM_SHA_1_HMAC",
	pkcs11.CKM_SHA_1_HMAC_GENERAL:             "CKM_SHA_1_HMAC_GENERAL",
	pkcs11.CKM_SHA256:                         "CKM_SHA256",
	pkcs11.CKM_SHA256_HMAC:                    "CKM_SHA256_HMAC",
	pkcs11.CKM_SHA256_HMAC_GENERAL:            "CKM_SHA256_HMAC_GENERAL",
	pkcs11.CKM_SHA224:                         "CKM_SHA224",
	pkcs11.CKM_SHA224_HMAC:                    "CKM_SHA224_HMAC",
	pkcs11.CKM_SHA224_HMAC_GENERAL:            "CKM_SHA224_HMAC_GENERAL",
	pkcs11.CKM_SHA384:                         "CKM_SHA384",
	pkcs11.CKM_SHA384_HMAC:                    "CKM_SHA384_HMAC",
	pkcs11.CKM_SHA384_HMAC_GENERAL:            "CKM_SHA384_HMAC_GENERAL",
	pkcs11.CKM_SHA512:                         "CKM_SHA512",
	pkcs11.CKM_SHA512_HMAC:                    "CKM_SHA512_HMAC",
	pkcs11.CKM_SHA512_HMAC_GENERAL:            "CKM_SHA512_HMAC_GENERAL",
	pkcs11.CKM_SHA3_256:                       "CKM_SHA3_256",
	pkcs11.CKM_SHA3_256_HMAC:                  "CKM_SHA3_256_HMAC",
	pkcs11.CKM_SHA3_256_HMAC_GENERAL:          "CKM_SHA3_256_HMAC_GENERAL",
	pkcs11.CKM_SHA3_256_KEY_GEN:               "CKM_SHA3_256_KEY_GEN",
	pkcs11.CKM_SHA3_224:                       "CKM_SHA3_224",
	pkcs11.CKM_SHA3_224_HMAC:                  "CKM_SHA3_224_HMAC",
	pkcs11.CKM_SHA3_224_HMAC_GENERAL:          "CKM_SHA3_224_HMAC_GENERAL",
	pkcs11.CKM_SHA3_224_KEY_GEN:               "CKM_SHA3_224_KEY_GEN",
	pkcs11.CKM_SHA3_384:                       "CKM_SHA3_384",
	pkcs11.CKM_SHA3_384_HMAC:                  "CKM_SHA3_384_HMAC",
	pkcs11.CKM_SHA3_384_HMAC_GENERAL:          "CKM_SHA3_384_HMAC_GENERAL",
	pkcs11.CKM_SHA3_384_KEY_GEN:               "CKM_SHA3_384_KEY_GEN",
	pkcs11.CKM_SHA3_512:                       "CKM_SHA3_512",
	pkcs11.CKM_SHA3_512_HMAC:                  "CKM_SHA3_512_HMAC",
	pkcs11.CKM_SHA3_512_HMAC_GENERAL:          "CKM_SHA3_512_HMAC_GENERAL",
	pkcs11.CKM_SHA3_512_KEY_GEN:               "CKM_SHA3_512_KEY_GEN",
	pkcs11.CKM_GENERIC_SECRET_KEY_GEN:         "CKM_GENERIC_SECRET_KEY_GEN",
	pkcs11.CKM_CONCATENATE_BASE_AND_KEY:       "CKM_CONCATENATE_BASE_AND_KEY",
	pkcs11.CKM_CONCATENATE_BASE_AND_DATA:      "CKM_CONCATENATE_BASE_AND_DATA",
	pkcs11.CKM_CONCATENATE_DATA_AND_BASE:      "CKM_CONCATENATE_DATA_AND_BASE",
	pkcs11.CKM_XOR_BASE_AND_DATA:              "CKM_XOR_BASE_AND_DATA",
	pkcs11.CKM_EXTRACT_KEY_FROM_KEY:           "CKM_EXTRACT_KEY_FROM_KEY",
	pkcs11.CKM_TLS_PRE_MASTER_KEY_GEN:         "CKM_TLS_PRE_MASTER_KEY_GEN",
	pkcs11.CKM_TLS_MASTER_KEY_DERIVE:          "CKM_TLS_MASTER_KEY_DERIVE",
	pkcs11.CKM_TLS_KEY_AND_MAC_DERIVE:         "CKM_TLS_KEY_AND_MAC_DERIVE",
	pkcs11.CKM_TLS_MASTER_KEY_DERIVE_DH:       "CKM_TLS_MASTER_KEY_DERIVE_DH",
	pkcs11.CKM_TLS_PRF:                        "CKM_TLS_PRF",
	pkcs11.CKM_MD5_KEY_DERIVATION:             "CKM_MD5_KEY_DERIVATION",
	pkcs11.CKM_SHA1_KEY_DERIVATION:            "CKM_SHA1_KEY_DERIVATION",
	pkcs11.CKM_SHA256_KEY_DERIVATION:          "CKM_SHA256_KEY_DERIVATION",
	pkcs11.CKM_SHA384_KEY_DERIVATION:          "CKM_SHA384_KEY_DERIVATION",
	pkcs11.CKM_SHA512_KEY_DERIVATION:          "CKM_SHA512_KEY_DERIVATION",
	pkcs11.CKM_SHA224_KEY_DERIVATION:          "CKM_SHA224_KEY_DERIVATION",
	pkcs11.CKM_SHA3_256_KEY_DERIVE:            "CKM_SHA3_256_KEY_DERIVE",
	pkcs11.CKM_SHA3_224_KEY_DERIVE:            "CKM_SHA3_224_KEY_DERIVE",
	pkcs11.CKM_SHA3_384_KEY_DERIVE:            "CKM_SHA3_384_KEY_DERIVE",
	pkcs11.CKM_SHA3_512_KEY_DERIVE:            "CKM_SHA3_512_KEY_DERIVE",
	pkcs11.CKM_SHAKE_128_KEY_DERIVE:           "CKM_SHAKE_128_KEY_DERIVE",
	pkcs11.CKM_SHAKE_256_KEY_DERIVE:           "CKM_SHAKE_256_KEY_DERIVE",
	pkcs11.CKM_PKCS5_PBKD2:                    "CKM_PKCS5_PBKD2",
	pkcs11.CKM_PBA_SHA1_WITH_SHA1_HMAC:        "CKM_PBA_SHA1_WITH_SHA1_HMAC",
	pkcs11.CKM_TLS10_MAC_SERVER:               "CKM_TLS10_MAC_SERVER",
	pkcs11.CKM_TLS10_MAC_CLIENT:               "CKM_TLS10_MAC_CLIENT",
	pkcs11.CKM_TLS12_MAC:                      "CKM_TLS12_MAC",
	pkcs11.CKM_TLS12_KDF:                      "CKM_TLS12_KDF",
	pkcs11.CKM_TLS12_MASTER_KEY_DERIVE:        "CKM_TLS12_MASTER_KEY_DERIVE",
	pkcs11.CKM_TLS12_KEY_AND_MAC_DERIVE:       "CKM_TLS12_KEY_AND_MAC_DERIVE",
	pkcs11.CKM_TLS12_MASTER_KEY_DERIVE_DH:     "CKM_TLS12_MASTER_KEY_DERIVE_DH",
	pkcs11.CKM_TLS12_KEY_SAFE_DERIVE:          "CKM_TLS12_KEY_SAFE_DERIVE",
	pkcs11.CKM_TLS_MAC:                        "CKM_TLS_MAC",
	pkcs11.CKM_TLS_KDF:                        "CKM_TLS_KDF",
	pkcs11.CKM_KEY_WRAP_LYNKS:                 "CKM_KEY_WRAP_LYNKS",
	pkcs11.CKM_KEY_WRAP_SET_OAEP:              "CKM_KEY_WRAP_SET_OAEP",
	pkcs11.CKM_EC_KEY_PAIR_GEN:                "CKM_EC_KEY_PAIR_GEN",
	pkcs11.CKM_ECDSA:                          "CKM_ECDSA",
	pkcs11.CKM_ECDSA_SHA1:                     "CKM_ECDSA_SHA1",
	pkcs11.CKM_ECDSA_SHA224:                   "CKM_ECDSA_SHA224",
	pkcs11.CKM_ECDSA_SHA256:                   "CKM_ECDSA_SHA256",
	pkcs11.CKM_ECDSA_SHA384:                   "CKM_ECDSA_SHA384",
	pkcs11.CKM_ECDSA_SHA512:                   "CKM_ECDSA_SHA512",
	pkcs11.CKM_ECDH1_DERIVE:                   "CKM_ECDH1_DERIVE",
	pkcs11.CKM_ECDH1_COFACTOR_DERIVE:          "CKM_ECDH1_COFACTOR_DERIVE",
	pkcs11.CKM_ECMQV_DERIVE:                   "CKM_ECMQV_DERIVE",
	pkcs11.CKM_ECDH_AES_KEY_WRAP:              "CKM_ECDH_AES_KEY_WRAP",
	pkcs11.CKM_RSA_AES_KEY_WRAP:               "CKM_RSA_AES_KEY_WRAP",
	pkcs11.CKM_AES_KEY_GEN:                    "CKM_AES_KEY_GEN",
	pkcs11.CKM_AES_ECB:                        "CKM_AES_ECB",
	pkcs11.CKM_AES_CBC:                        "CKM_AES_CBC",
	pkcs11.CKM_AES_MAC:                        "CKM_AES_MAC",
	pkcs11.CKM_AES_MAC_GENERAL:                "CKM_AES_MAC_GENERAL",
	pkcs11.CKM_AES_CBC_PAD:                    "CKM_AES_CBC_PAD",
	pkcs11.CKM_AES_CTR:                        "CKM_AES_CTR",
	pkcs11.CKM_AES_GCM:                        "CKM_AES_GCM",
	pkcs11.CKM_AES_CCM:                        "CKM_AES_CCM",
	pkcs11.CKM_AES_CTS:                        "CKM_AES_CTS",
	pkcs11.CKM_AES_CMAC:                       "CKM_AES_CMAC",
	pkcs11.CKM_AES_CMAC_GENERAL:               "CKM_AES_CMAC_GENERAL",
	pkcs11.CKM_AES_XCBC_MAC:                   "CKM_AES_XCBC_MAC",
	pkcs11.CKM_AES_XCBC_MAC_96:                "CKM_AES_XCBC_MAC_96",
	pkcs11.CKM_AES_GMAC:                       "CKM_AES_GMAC",
	pkcs11.CKM_DES_ECB_ENCRYPT_DATA:           "CKM_DES_ECB_ENCRYPT_DATA",
	pkcs11.CKM_DES_CBC_ENCRYPT_DATA:           "CKM_DES_CBC_ENCRYPT_DATA",
	pkcs11.CKM_DES3_ECB_ENCRYPT_DATA:          "CKM_DES3_ECB_ENCRYPT_DATA",
	pkcs11.CKM_DES3_CBC_ENCRYPT_DATA:          "CKM_DES3_CBC_ENCRYPT_DATA",
	pkcs11.CKM_AES_ECB_ENCRYPT_DATA:           "CKM_AES_ECB_ENCRYPT_DATA",
	pkcs11.CKM_AES_CBC_ENCRYPT_DATA:           "CKM_AES_CBC_ENCRYPT_DATA",
	pkcs11.CKM_DSA_PARAMETER_GEN:              "CKM_DSA_PARAMETER_GEN",
	pkcs11.CKM_DH_PKCS_PARAMETER_GEN:          "CKM_DH_PKCS_PARAMETER_GEN",
	pkcs11.CKM_DSA_PROBABLISTIC_PARAMETER_GEN: "CKM_DSA_PROBABLISTIC_PARAMETER_GEN",
	pkcs11.CKM_DSA_SHAWE_TAYLOR_PARAMETER_GEN: "CKM_DSA_SHAWE_TAYLOR_PARAMETER_GEN",
	pkcs11.CKM_AES_OFB:                        "CKM_AES_OFB",
	pkcs11.CKM_AES_CFB64:                      "CKM_AES_CFB64",
	pkcs11.CKM_AES_CFB8:                       "CKM_AES_CFB8",
	pkcs11.CKM_AES_CFB128:                     "CKM_AES_CFB128",
	pkcs11.CKM_AES_CFB1:                       "CKM_AES_CFB1",
	pkcs11.CKM_AES_KEY_WRAP:                   "CKM_AES_KEY_WRAP",
	pkcs11.CKM_AES_KEY_WRAP_PAD:               "CKM_AES_KEY_WRAP_PAD",
	pkcs11.CKM_RSA_PKCS_TPM_1_1:               "CKM_RSA_PKCS_TPM_1_1",
	pkcs11.CKM_RSA_PKCS_OAEP_TPM_1_1:          "CKM_RSA_PKCS_OAEP_TPM_1_1",
}
