// A certified OAuth 2.0 server for the tests. Arguments: port, directory of its packages, the signing client's key as a JWK.
// Prints "ready" when it listens. Anybody logs in with any password; refresh tokens rotate, and using an old one revokes the login.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [port, packages, jwk] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const issuer = `http://127.0.0.1:${port}`;
const personal = {
  application_type: 'native',
  redirect_uris: ['http://127.0.0.1/', 'http://localhost/'],
  response_types: ['code'],
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
};
const itself = { redirect_uris: [], response_types: [], grant_types: ['client_credentials'] };

const provider = new Provider(issuer, {
  clients: [
    { ...itself, client_id: 'posting', client_secret: 'a secret: with %25 & more', token_endpoint_auth_method: 'client_secret_post' },
    { ...itself, client_id: 'basic', client_secret: 'a secret: with %25 & more', token_endpoint_auth_method: 'client_secret_basic' },
    { ...itself, client_id: 'signing', token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [JSON.parse(jwk)] } },
    { ...personal, client_id: 'person', token_endpoint_auth_method: 'none' },
  ],
  scopes: ['openid', 'offline_access', 'mail'],
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
  },
  findAccount: (context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  ttl: { AccessToken: 600, ClientCredentials: 600, RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 600, DeviceCode: 600 },
  cookies: { keys: ['only for tests'] },
});
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
