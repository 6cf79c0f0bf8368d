// A user directory in memory, in place of your database. Passwords are kept as scrypt hashes only.

import { randomBytes, type ScryptOptions, scrypt as scryptCallback, timingSafeEqual } from "node:crypto";

export interface User {
  readonly id: string;
  readonly email: string;
}

interface Password {
  readonly salt: Buffer;
  readonly hash: Buffer;
}

// 64 MB and about 0.2 s for each guess.
const COST: ScryptOptions = { N: 2 ** 16, r: 8, p: 1, maxmem: 128 * 2 ** 20 };

function scrypt(password: string, salt: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) =>
    scryptCallback(password.normalize("NFKC"), salt, 32, COST, (error, hash) =>
      error ? reject(error) : resolve(hash),
    ),
  );
}

async function hashed(password: string): Promise<Password> {
  const salt = randomBytes(16);
  return { salt, hash: await scrypt(password, salt) };
}

export class Users {
  readonly #users = new Map<string, { user: User; password: Password }>();

  private constructor(private readonly nobody: Password) {}

  /** One user: name "ada", password "correct horse battery staple". */
  static async demo(): Promise<Users> {
    const users = new Users(await hashed(randomBytes(16).toString("hex")));
    const user = { id: "user-1815", email: "ada@example.com" };
    users.#users.set("ada", { user, password: await hashed("correct horse battery staple") });
    return users;
  }

  /** The user, if name and password are right. An unknown name takes as long as a wrong password. */
  async login(name: string, password: string): Promise<User | undefined> {
    const entry = this.#users.get(name);
    const expected = entry?.password ?? this.nobody;
    const right = timingSafeEqual(await scrypt(password, expected.salt), expected.hash);
    return right ? entry?.user : undefined;
  }
}
