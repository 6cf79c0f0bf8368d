import com.nimbusds.jose.EncryptionMethod;
import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWEAlgorithm;
import com.nimbusds.jose.JWEDecrypter;
import com.nimbusds.jose.JWEEncrypter;
import com.nimbusds.jose.JWEHeader;
import com.nimbusds.jose.JWEObject;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.JWSHeader;
import com.nimbusds.jose.JWSObject;
import com.nimbusds.jose.JWSSigner;
import com.nimbusds.jose.JWSVerifier;
import com.nimbusds.jose.Payload;
import com.nimbusds.jose.crypto.AESDecrypter;
import com.nimbusds.jose.crypto.AESEncrypter;
import com.nimbusds.jose.crypto.DirectDecrypter;
import com.nimbusds.jose.crypto.DirectEncrypter;
import com.nimbusds.jose.crypto.ECDHDecrypter;
import com.nimbusds.jose.crypto.ECDHEncrypter;
import com.nimbusds.jose.crypto.ECDSASigner;
import com.nimbusds.jose.crypto.ECDSAVerifier;
import com.nimbusds.jose.crypto.Ed25519Signer;
import com.nimbusds.jose.crypto.Ed25519Verifier;
import com.nimbusds.jose.crypto.MACSigner;
import com.nimbusds.jose.crypto.MACVerifier;
import com.nimbusds.jose.crypto.RSADecrypter;
import com.nimbusds.jose.crypto.RSAEncrypter;
import com.nimbusds.jose.crypto.RSASSASigner;
import com.nimbusds.jose.crypto.RSASSAVerifier;
import com.nimbusds.jose.crypto.X25519Decrypter;
import com.nimbusds.jose.crypto.X25519Encrypter;
import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.util.Base64URL;
import com.nimbusds.jose.util.JSONObjectUtils;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.text.ParseException;
import java.util.Map;

/** Driver of Nimbus JOSE+JWT: answers the requests of tests/interop/library.py, one line of JSON each. */
public final class Driver {
  private final Map<String, Object> asked;

  private Driver(Map<String, Object> asked) {
    this.asked = asked;
  }

  /** Reads requests until the end of the input. */
  public static void main(String[] arguments) throws IOException {
    var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      Map<String, Object> answer;
      try {
        answer = Map.of("ok", new Driver(JSONObjectUtils.parse(line)).answer());
      } catch (Exception | StackOverflowError error) {
        answer = Map.of("error", error.toString());
      }
      System.out.println(JSONObjectUtils.toJSONString(answer));
    }
  }

  private String answer() throws JOSEException, ParseException {
    String format = text("format");
    if (text("op").equals("open")) {
      byte[] payload =
          switch (format) {
            case "signed" -> verify(text("token"));
            case "encrypted" -> decrypt();
            default -> verify(new String(decrypt(), StandardCharsets.UTF_8));
          };
      return Base64URL.encode(payload).toString();
    }
    byte[] payload = Base64URL.from(text("payload")).decode();
    return switch (format) {
      case "signed" -> sign(payload);
      case "encrypted" -> encrypt(payload, encryption().type(new JOSEObjectType(text("typ"))));
      default -> encrypt(sign(payload).getBytes(StandardCharsets.UTF_8), encryption().contentType("JWT"));
    };
  }

  private String sign(byte[] payload) throws JOSEException, ParseException {
    JWK key = key("signature");
    var algorithm = JWSAlgorithm.parse(text("sign"));
    var header = new JWSHeader.Builder(algorithm).keyID(key.getKeyID()).type(new JOSEObjectType(text("typ"))).build();
    JWSSigner signer =
        switch (key.getKeyType().getValue()) {
          case "oct" -> new MACSigner(key.toOctetSequenceKey());
          case "RSA" -> new RSASSASigner(key.toRSAKey());
          case "EC" -> new ECDSASigner(key.toECKey());
          default -> new Ed25519Signer(key.toOctetKeyPair());
        };
    var token = new JWSObject(header, new Payload(payload));
    token.sign(signer);
    return token.serialize();
  }

  private byte[] verify(String text) throws JOSEException, ParseException {
    JWK key = key("signature");
    var token = JWSObject.parse(text);
    if (!token.getHeader().getAlgorithm().equals(JWSAlgorithm.parse(text("sign")))) {
      throw new JOSEException("another algorithm");
    }
    JWSVerifier verifier =
        switch (key.getKeyType().getValue()) {
          case "oct" -> new MACVerifier(key.toOctetSequenceKey());
          case "RSA" -> new RSASSAVerifier(key.toRSAKey());
          case "EC" -> new ECDSAVerifier(key.toECKey());
          default -> new Ed25519Verifier(key.toOctetKeyPair());
        };
    if (!token.verify(verifier)) {
      throw new JOSEException("another signature");
    }
    return token.getPayload().toBytes();
  }

  private JWEHeader.Builder encryption() throws ParseException {
    return new JWEHeader.Builder(JWEAlgorithm.parse(text("alg")), EncryptionMethod.parse(text("enc")))
        .keyID(key("encryption").getKeyID());
  }

  private String encrypt(byte[] plaintext, JWEHeader.Builder header) throws JOSEException, ParseException {
    JWK key = key("encryption");
    JWEEncrypter encrypter =
        switch (key.getKeyType().getValue()) {
          case "oct" ->
              text("alg").equals("dir")
                  ? new DirectEncrypter(key.toOctetSequenceKey())
                  : new AESEncrypter(key.toOctetSequenceKey());
          case "RSA" -> new RSAEncrypter(key.toRSAKey());
          case "EC" -> new ECDHEncrypter(key.toECKey());
          default -> new X25519Encrypter(key.toOctetKeyPair());
        };
    var token = new JWEObject(header.build(), new Payload(plaintext));
    token.encrypt(encrypter);
    return token.serialize();
  }

  private byte[] decrypt() throws JOSEException, ParseException {
    JWK key = key("encryption");
    var token = JWEObject.parse(text("token"));
    var header = token.getHeader();
    if (!header.getAlgorithm().equals(JWEAlgorithm.parse(text("alg")))
        || !header.getEncryptionMethod().equals(EncryptionMethod.parse(text("enc")))) {
      throw new JOSEException("another algorithm");
    }
    JWEDecrypter decrypter =
        switch (key.getKeyType().getValue()) {
          case "oct" ->
              text("alg").equals("dir")
                  ? new DirectDecrypter(key.toOctetSequenceKey())
                  : new AESDecrypter(key.toOctetSequenceKey());
          case "RSA" -> new RSADecrypter(key.toRSAKey());
          case "EC" -> new ECDHDecrypter(key.toECKey());
          default -> new X25519Decrypter(key.toOctetKeyPair());
        };
    token.decrypt(decrypter);
    return token.getPayload().toBytes();
  }

  private String text(String name) throws ParseException {
    return JSONObjectUtils.getString(asked, name);
  }

  private JWK key(String role) throws ParseException {
    return JWK.parse(JSONObjectUtils.getJSONObject(JSONObjectUtils.getJSONObject(asked, "keys"), role));
  }
}
