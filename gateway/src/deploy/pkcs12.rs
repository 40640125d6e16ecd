//! PKCS#12 (RFC 7292): key, certificate and chain in one file, under a password.
//!
//! The algorithms are those that OpenSSL 3, Java 17 and Windows Server 2019 write themselves: PBES2 (RFC 8018) of PBKDF2 with HMAC-SHA-256 and AES-256-CBC for
//! both parts, and a MAC of HMAC-SHA-256 whose key comes of the format's own derivation (RFC 7292, appendix B). PBMAC1 (RFC 9579) would be better, and is read by OpenSSL 3.4 and
//! Java 24 on only. The strength of it is that of the password.
//!
//! Written here with the DER writer and the cryptography that acmegate has anyway: the crates for it bring a second cryptography library along.

use std::num::NonZeroU32;

use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    digest, hmac, pbkdf2,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use yasna::{DERWriter, DERWriterSeq, Tag, construct_der, models::ObjectIdentifier};
use zeroize::Zeroizing;

use super::Password;
use crate::issuer::Issued;

const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];
const ENCRYPTED_DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 6];
const SHROUDED_KEY_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 2];
const CERT_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 3];
const X509_CERTIFICATE: &[u64] = &[1, 2, 840, 113_549, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113_549, 1, 9, 20];
const LOCAL_KEY_ID: &[u64] = &[1, 2, 840, 113_549, 1, 9, 21];
const PBES2: &[u64] = &[1, 2, 840, 113_549, 1, 5, 13];
const PBKDF2: &[u64] = &[1, 2, 840, 113_549, 1, 5, 12];
const HMAC_SHA256: &[u64] = &[1, 2, 840, 113_549, 2, 9];
const AES_256_CBC: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 1, 42];
const SHA256: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];

/// Rounds of both derivations: what Java writes. A file is opened at each start of a server, so it must not take seconds; who wants strength takes a long password.
const ROUNDS: u32 = 10_000;
/// Bytes of salt.
const SALT: usize = 16;

/// The file, DER. `name` is the friendly name, which Java calls the alias.
///
/// # Errors
/// What cannot be read or encrypted.
pub(super) fn encode(issued: &Issued, name: &str, password: &Password) -> Result<Vec<u8>, String> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(issued.private_key_pem.expose().as_bytes());
    let key = key.map_err(|error| format!("the key is not PKCS#8: {error}"))?;
    let chain = CertificateDer::pem_slice_iter(issued.fullchain_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("the chain is not PEM: {error}"))?;
    let leaf = chain.first().ok_or("there is no certificate")?;
    let labels = Labels { name, key_id: digest::digest(&digest::SHA256, leaf).as_ref().to_vec() };

    let certificates = Encrypted::new(certificate_bags(&chain, &labels), password)?;
    let key = Encrypted::new(key.secret_pkcs8_der().to_vec(), password)?;
    let safes = construct_der(|writer| {
        writer.write_sequence(|safes| {
            content_info(safes.next(), ENCRYPTED_DATA, |content| {
                content.write_sequence(|data| {
                    data.next().write_u32(0);
                    data.next().write_sequence(|info| {
                        write_oid(info.next(), DATA);
                        certificates.write_algorithm(info.next());
                        info.next().write_tagged_implicit(Tag::context(0), |bytes| bytes.write_bytes(&certificates.bytes));
                    });
                });
            });
            content_info(safes.next(), DATA, |content| content.write_bytes(&key_bags(&key, &labels)));
        });
    });
    let mac = Mac::of(&safes, password)?;
    Ok(construct_der(|writer| {
        writer.write_sequence(|pfx| {
            pfx.next().write_u32(3);
            content_info(pfx.next(), DATA, |content| content.write_bytes(&safes));
            mac.write(pfx.next());
        });
    }))
}

/// How the key and its certificate find each other.
struct Labels<'a> {
    name: &'a str,
    key_id: Vec<u8>,
}

impl Labels<'_> {
    fn write(&self, bag: &mut DERWriterSeq<'_>) {
        bag.next().write_set_of(|attributes| {
            attributes.next().write_sequence(|attribute| {
                write_oid(attribute.next(), FRIENDLY_NAME);
                attribute.next().write_set_of(|values| values.next().write_bmp_string(self.name));
            });
            attributes.next().write_sequence(|attribute| {
                write_oid(attribute.next(), LOCAL_KEY_ID);
                attribute.next().write_set_of(|values| values.next().write_bytes(&self.key_id));
            });
        });
    }
}

fn certificate_bags(chain: &[CertificateDer<'_>], labels: &Labels<'_>) -> Vec<u8> {
    construct_der(|writer| {
        writer.write_sequence(|bags| {
            for (place, certificate) in chain.iter().enumerate() {
                bags.next().write_sequence(|bag| {
                    write_oid(bag.next(), CERT_BAG);
                    bag.next().write_tagged(Tag::context(0), |value| {
                        value.write_sequence(|value| {
                            write_oid(value.next(), X509_CERTIFICATE);
                            value.next().write_tagged(Tag::context(0), |bytes| bytes.write_bytes(certificate));
                        });
                    });
                    if place == 0 {
                        labels.write(bag);
                    }
                });
            }
        });
    })
}

fn key_bags(key: &Encrypted, labels: &Labels<'_>) -> Vec<u8> {
    construct_der(|writer| {
        writer.write_sequence(|bags| {
            bags.next().write_sequence(|bag| {
                write_oid(bag.next(), SHROUDED_KEY_BAG);
                bag.next().write_tagged(Tag::context(0), |value| {
                    value.write_sequence(|info| {
                        key.write_algorithm(info.next());
                        info.next().write_bytes(&key.bytes);
                    });
                });
                labels.write(bag);
            });
        });
    })
}

fn content_info(writer: DERWriter<'_>, kind: &[u64], content: impl FnOnce(DERWriter<'_>)) {
    writer.write_sequence(|info| {
        write_oid(info.next(), kind);
        info.next().write_tagged(Tag::context(0), content);
    });
}

fn write_oid(writer: DERWriter<'_>, oid: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(oid));
}

/// Bytes under PBES2 (RFC 8018, 6.2).
struct Encrypted {
    salt: [u8; SALT],
    iv: [u8; 16],
    bytes: Vec<u8>,
}

impl Encrypted {
    /// Encrypts; the clear text does not stay in memory.
    fn new(clear: Vec<u8>, password: &Password) -> Result<Self, String> {
        let failed = |_| "the encryption failed".to_owned();
        let clear = Zeroizing::new(clear);
        // Room for the padding, so that no copy of the clear text is left by a vector that grows.
        let mut bytes = Vec::with_capacity(clear.len() + 16);
        bytes.extend_from_slice(&clear);
        let salt = salt()?;
        let mut key = Zeroizing::new([0; 32]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds(), &salt, password.expose().as_bytes(), &mut *key);
        let key = UnboundCipherKey::new(&AES_256, &*key).and_then(PaddedBlockEncryptingKey::cbc_pkcs7).map_err(failed)?;
        let context = key.encrypt(&mut bytes).map_err(failed)?;
        let DecryptionContext::Iv128(iv) = &context else { return Err("the encryption gave no IV".into()) };
        Ok(Self { salt, iv: *iv.as_ref(), bytes })
    }

    fn write_algorithm(&self, writer: DERWriter<'_>) {
        writer.write_sequence(|algorithm| {
            write_oid(algorithm.next(), PBES2);
            algorithm.next().write_sequence(|parameters| {
                parameters.next().write_sequence(|derivation| {
                    write_oid(derivation.next(), PBKDF2);
                    derivation.next().write_sequence(|parameters| {
                        parameters.next().write_bytes(&self.salt);
                        parameters.next().write_u32(ROUNDS);
                        parameters.next().write_sequence(|function| {
                            write_oid(function.next(), HMAC_SHA256);
                            function.next().write_null();
                        });
                    });
                });
                parameters.next().write_sequence(|scheme| {
                    write_oid(scheme.next(), AES_256_CBC);
                    scheme.next().write_bytes(&self.iv);
                });
            });
        });
    }
}

/// The seal over the whole file.
struct Mac {
    salt: [u8; SALT],
    tag: Vec<u8>,
}

impl Mac {
    fn of(bytes: &[u8], password: &Password) -> Result<Self, String> {
        let salt = salt()?;
        let key = mac_key(password.expose(), &salt, ROUNDS);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), bytes).as_ref().to_vec();
        Ok(Self { salt, tag })
    }

    fn write(&self, writer: DERWriter<'_>) {
        writer.write_sequence(|mac| {
            mac.next().write_sequence(|digest| {
                digest.next().write_sequence(|algorithm| {
                    write_oid(algorithm.next(), SHA256);
                    algorithm.next().write_null();
                });
                digest.next().write_bytes(&self.tag);
            });
            mac.next().write_bytes(&self.salt);
            mac.next().write_u32(ROUNDS);
        });
    }
}

/// The key of a MAC by RFC 7292, appendix B.2, with SHA-256: as long as one digest, so that one pass is all.
fn mac_key(password: &str, salt: &[u8], rounds: u32) -> Zeroizing<Vec<u8>> {
    /// The purpose of the key (B.3), and SHA-256's block.
    const MAC: u8 = 3;
    const BLOCK: usize = 64;
    let password: Zeroizing<Vec<u8>> = Zeroizing::new(password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect());
    let filled = |bytes: &[u8]| Zeroizing::new(bytes.iter().copied().cycle().take(bytes.len().next_multiple_of(BLOCK)).collect::<Vec<_>>());
    let mut first = digest::Context::new(&digest::SHA256);
    first.update(&[MAC; BLOCK]);
    first.update(&filled(salt));
    first.update(&filled(&password));
    let mut key = Zeroizing::new(first.finish().as_ref().to_vec());
    for _ in 1..rounds {
        let next = digest::digest(&digest::SHA256, &key);
        key.copy_from_slice(next.as_ref());
    }
    key
}

fn salt() -> Result<[u8; SALT], String> {
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(salt)
}

fn rounds() -> NonZeroU32 {
    NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::Authority;

    /// By OpenSSL 3.0: `openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexpass:0073006d006500670000 -kdfopt hexsalt:0a58cf64530d823f -kdfopt iter:N -kdfopt id:3
    /// PKCS12KDF`.
    #[test]
    fn the_key_of_the_mac_is_that_of_others() {
        let salt = [0x0a, 0x58, 0xcf, 0x64, 0x53, 0x0d, 0x82, 0x3f];
        let key = |rounds| data_encoding::HEXLOWER.encode(&mac_key("smeg", &salt, rounds));
        assert_eq!(key(1), "b26d0cad11e901ad0ba0ce08b18df8fc49d2eb271bf02a0cee1669e01251b18d");
        assert_eq!(key(1000), "35ac16a454d608fb10c8d7c6338ca85818587aed0ff771fd265957e412c2c03c");
    }

    #[test]
    fn neither_key_nor_certificate_stands_in_it_in_clear() {
        let issued = Authority::new().issue(&["one.test"]);
        let password = "s3cret".parse().unwrap();
        let file = encode(&issued, "one.test", &password).unwrap();
        let key = PrivatePkcs8KeyDer::from_pem_slice(issued.private_key_pem.expose().as_bytes()).unwrap();
        let leaf = CertificateDer::from_pem_slice(issued.fullchain_pem.as_bytes()).unwrap();
        for clear in [&key.secret_pkcs8_der()[..32], &leaf[..32], b"s3cret"] {
            assert!(!file.windows(clear.len()).any(|window| window == clear));
        }
        assert_ne!(file, encode(&issued, "one.test", &password).unwrap(), "salts are new each time");
        let mut bad = issued;
        bad.fullchain_pem.clear();
        assert!(encode(&bad, "one.test", &password).is_err());
    }
}
